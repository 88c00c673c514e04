"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv 1512.03385).
Blocks from torchvision, under torchvision's names, so that its state dictionaries fit at full width.

The published stem, a 7 x 7 convolution with stride 2 and max pooling with stride 2, is made for photographs of 224 x
224 pixels. The published stem reduces the 40 to 128 rows of a spectrogram window to a quarter. The small stem has a 3 x
3 convolution with stride 1, as in the paper for small pictures (section 4.2), and keeps the pooling. On real
spectrograms the small stem was ten percentage points more accurate (docs/LOG.md), at four times the cost.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from genre.architectures import _pretrained
from genre.architectures._pretrained import PretrainedParams
from genre.architectures._space import Choice, Domain, LogUniform, Uniform
from genre.errors import ConfigError

_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Params(PretrainedParams):
    depth: Literal[18, 34, 50] = Field(18, description="layers: 18 and 34 have basic blocks, 50 has bottlenecks")
    stem: Literal["auto", "small", "published"] = Field(
        "auto", description="small: 3 x 3; published: 7 x 7 with stride 2; auto: published with pretrained, else small"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout probability before the classifier")

    @model_validator(mode="after")
    def _fits_the_published_stem(self) -> Self:
        if self.pretrained and self.stem == "small":
            raise ConfigError(
                f"pretrained={self.pretrained} fits only the published stem, found stem=small; use stem=auto"
            )
        return self

    def has_small_stem(self) -> bool:
        """Return whether the stem is the small one, which `auto` selects without pretrained weights."""
        return self.stem == "small" or (self.stem == "auto" and not self.pretrained)


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(5e-4, 1e-2),
    "train.weight_decay": LogUniform(1e-3, 1e-1),
    "train.mixup": Choice((0.0, 0.3)),
    "params.dropout": Uniform(0.0, 0.5),
}


class ResNet(nn.Module):
    """(batch, 1, bins, frames) -> (batch, classes); any size."""

    def __init__(self, params: Params, classes: int) -> None:
        super().__init__()
        block = Bottleneck if params.depth == 50 else BasicBlock
        width = params.width
        kernel, stride = (3, 1) if params.has_small_stem() else (7, 2)
        self.conv1 = nn.Conv2d(1, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        in_channels = width
        for number, blocks in enumerate(_STAGES[params.depth], start=1):
            planes = width * 2 ** (number - 1)
            self.add_module(
                f"layer{number}", _stage(block, in_channels, planes, blocks, stride=1 if number == 1 else 2)
            )
            in_channels = planes * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(params.dropout)
        self.fc = nn.Linear(in_channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits


def _stage(
    block: type[BasicBlock | Bottleneck], in_channels: int, planes: int, blocks: int, stride: int
) -> nn.Sequential:
    """Return `blocks` residual blocks; the first one and its shortcut change size and channels."""
    out_channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    # without base_width, which torchvision's BasicBlock does not support
    first = block(in_channels, planes, stride, shortcut)
    return nn.Sequential(first, *(block(out_channels, planes) for _ in range(blocks - 1)))


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """Return the network; it does not depend on `bins`."""
    return ResNet(params, classes)


def load_pretrained(params: Params, network: nn.Module) -> None:
    """Load the pretrained weights that `params` ask for."""
    _pretrained.load(network, params.pretrained, f"resnet{params.depth}", first="conv1", head="fc")
