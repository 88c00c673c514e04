"""Classify music by genre from spectrograms. The science: no module in here imports Ray."""

__version__ = "0.1.0"
