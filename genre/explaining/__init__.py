"""Explain a prediction: which seconds and which frequencies of a track were evidence for its genre.

Input: a model and a decoded track. Output: a relevance map over the spectrogram, as arrays, as a picture and as a page
that plays the music. Independent of training.
"""

from genre.explaining.attribution import Explanation, attention, explain, integrated_gradients
from genre.explaining.page import html
from genre.explaining.picture import png

__all__ = ["Explanation", "attention", "explain", "html", "integrated_gradients", "png"]
