"""The common part of VGG16 and VGG19: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image
recognition", ICLR 2015 (arXiv 1409.1556), configurations D and E, with batch norm; the body is torchvision's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from genre.architectures import _pretrained
from genre.architectures._pretrained import PretrainedParams
from genre.architectures._space import Choice, Domain, LogUniform, Uniform


class Params(PretrainedParams):
    head: Literal["global", "published"] = Field(
        "global",
        description="global: mean over the last feature maps; published: 7 x 7 pooling, two layers of 4096 units",
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout probability before the classifier")


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(2e-4, 5e-3),
    "train.weight_decay": LogUniform(1e-3, 1e-1),
    "train.mixup": Choice((0.0, 0.3)),
    "params.dropout": Uniform(0.2, 0.6),
}


class VGG(nn.Module):
    """(batch, 1, bins, frames) -> (batch, classes). An axis shorter than 32 is padded with zeros to 32."""

    def __init__(self, configuration: Literal["D", "E"], params: Params, classes: int) -> None:
        super().__init__()
        plan = [step if isinstance(step, str) else step * params.width // 64 for step in cfgs[configuration]]
        self.features = make_layers(plan, batch_norm=True)
        first = self.features[0]
        # one channel in place of three colours
        self.features[0] = nn.Conv2d(1, first.out_channels, kernel_size=3, padding=1)
        channels = 512 * params.width // 64
        if params.head == "global":
            self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(nn.Dropout(params.dropout), nn.Linear(channels, classes))
        else:
            self.pool = nn.AdaptiveAvgPool2d(7)
            self.classifier = _published_head(channels * 49, 4096 * params.width // 64, params.dropout, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        bins, frames = x.shape[2:]
        if bins < 32 or frames < 32:
            x = nn.functional.pad(x, (0, max(0, 32 - frames), 0, max(0, 32 - bins)))
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def load_published(published: str, params: Params, network: nn.Module) -> None:
    """Load pretrained weights into the body of a new network, and into the published head except its last layer."""
    head = "classifier" if params.head == "global" else "classifier.6"
    _pretrained.load(network, params.pretrained, published, first="features.0", head=head)


def _published_head(in_features: int, hidden: int, dropout: float, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )


def _initialise(network: nn.Module) -> None:
    """Initialise the convolutions like torchvision's VGG: He initialisation (arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
