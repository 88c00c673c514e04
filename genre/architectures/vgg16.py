"""VGG16, configuration D of Simonyan and Zisserman 2015 (arXiv 1409.1556), with batch norm."""

from __future__ import annotations

from torch import nn

from genre.architectures._vgg import SEARCH as SEARCH
from genre.architectures._vgg import VGG, Params, load_pretrained


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """The network does not depend on `bins`."""
    return VGG("D", params, classes)


def start(params: Params, network: nn.Module) -> None:
    """Pretrained weights, where `params` ask for them; see `genre/architectures/_pretrained.py`."""
    load_pretrained("vgg16_bn", params, network)
