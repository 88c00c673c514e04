"""A trained model: its network and normaliser, its card, its files, its calibration, its exports.

Enters: a trained `Classifier`, or the address of a saved one. Leaves: logits and probabilities for spectrograms.
Knows nothing of training loops, corpora or reports.
"""
