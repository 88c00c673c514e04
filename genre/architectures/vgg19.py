"""VGG19, configuration E of Simonyan and Zisserman 2015 (arXiv 1409.1556), with batch norm."""

from __future__ import annotations

from torch import nn

from genre.architectures._vgg import SEARCH as SEARCH
from genre.architectures._vgg import VGG, Params, load_published


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """Return the network; it does not depend on `bins`."""
    return VGG("E", params, classes)


def load_pretrained(params: Params, network: nn.Module) -> None:
    """Load the pretrained weights that `params` ask for."""
    load_published("vgg19_bn", params, network)
