"""The quality of predictions and the cost of a model.

Input: probabilities and labels, or a saved model and clips. Output: scores with intervals, the classical baseline,
robustness to changed audio, and the cost of inference. Independent of training and reports.
"""
