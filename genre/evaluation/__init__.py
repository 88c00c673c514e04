"""How good predictions are: metrics with intervals, the classical baseline, robustness, and the cost of inference.

Enters: probabilities and labels, or a model and clips. Leaves: scores. Knows nothing of training and of reports.
"""
