"""Which seconds and which frequencies decided: a map over the spectrogram, a picture, and a page to listen to it."""

from genre.explaining.attribution import Explanation, attention, explain, integrated_gradients
from genre.explaining.page import html
from genre.explaining.picture import png

__all__ = ["Explanation", "attention", "explain", "html", "integrated_gradients", "png"]
