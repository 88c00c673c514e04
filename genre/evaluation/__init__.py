"""The quality of predictions and the cost of a model.

Enters: probabilities and labels, or a saved model and clips. Leaves: scores with intervals, the classical baseline,
robustness to changed audio, and the cost of inference. The room knows nothing of training and of reports.
"""
