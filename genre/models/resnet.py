"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv 1512.03385).
Layers have torchvision's names, so that its state dictionaries fit at full width.

Its blocks are written out, since importing torchvision costs each process a second (it brings torch's compiler).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from genre.models import _pretrained
from genre.models._pretrained import PretrainedParams
from genre.models._space import Choice, Domain, LogUniform, Uniform

_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Params(PretrainedParams):
    depth: Literal[18, 34, 50] = Field(18, description="layers: 18 and 34 have basic blocks, 50 has bottlenecks")
    dropout: float = Field(0.2, ge=0, lt=1, description="before the classifier")


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(5e-4, 1e-2),
    "train.weight_decay": LogUniform(1e-3, 1e-1),
    "train.mixup": Choice((0.0, 0.3)),
    "params.dropout": Uniform(0.0, 0.5),
}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (figure 5, left); the first changes size."""

    expansion = 1

    def __init__(self, inside: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        summed: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return summed


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1 beside a shortcut (figure 5, right); the middle one changes size."""

    expansion = 4

    def __init__(self, inside: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        summed: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return summed


class ResNet(nn.Module):
    """(batch, 1, bins, frames) -> (batch, classes); any size."""

    def __init__(self, params: Params, classes: int) -> None:
        super().__init__()
        block = Bottleneck if params.depth == 50 else BasicBlock
        width = params.width
        self.conv1 = nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        inside = width
        for number, blocks in enumerate(_STAGES[params.depth], start=1):
            planes = width * 2 ** (number - 1)
            self.add_module(f"layer{number}", _stage(block, inside, planes, blocks, stride=1 if number == 1 else 2))
            inside = planes * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(params.dropout)
        self.fc = nn.Linear(inside, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits


def _stage(block: type[BasicBlock | Bottleneck], inside: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` residual blocks; the first changes size, and its shortcut with it."""
    outside = planes * block.expansion
    shortcut = None
    if stride != 1 or inside != outside:
        shortcut = nn.Sequential(
            nn.Conv2d(inside, outside, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outside)
        )
    first = block(inside, planes, stride, shortcut)
    return nn.Sequential(first, *(block(outside, planes) for _ in range(blocks - 1)))


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """The network does not depend on `bins`."""
    return ResNet(params, classes)


def start(params: Params, network: nn.Module) -> None:
    """Pretrained weights, where `params` ask for them; see `genre/models/_pretrained.py`."""
    _pretrained.load(network, params.pretrained, f"resnet{params.depth}", first="conv1", head="fc")
