"""The reference model: a small residual network with one attention block, for 128 x 128 pixels.

Its parts are the ones that fine-grained classifiers for small devices are made of: plain residual
blocks (He et al. 2016, arXiv:1512.03385), inverted residuals with depthwise convolutions (Sandler
et al. 2018, arXiv:1801.04381), squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507) and
multi-head self-attention over the final grid (Vaswani et al. 2017, arXiv:1706.03762).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edge_fg_tools.fieldguide.training.inputs import INPUT_SIDE

EMBEDDING = 384


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class _Residual(nn.Module):  # type: ignore[misc]
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = _conv(channels, channels, 3), _conv(channels, channels, 3)
        self.body = nn.Sequential(*first, nn.ReLU(), *second)
        self.activation = nn.ReLU()

    def forward(self, features: Any) -> Any:
        return self.activation(features + self.body(features))


class _Squeeze(nn.Module):  # type: ignore[misc]
    """Squeeze-and-excitation: weigh channels by what the whole grid shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // 8, 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(channels // 8, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, features: Any) -> Any:
        weights = self.expand(self.activation(self.reduce(self.pool(features))))
        return features * self.gate(weights)


class _Inverted(nn.Module):  # type: ignore[misc]
    """Inverted residual: widen, depthwise convolution, (squeeze,) narrow; shortcut if it fits."""

    def __init__(
        self, inputs: int, outputs: int, *, expansion: int, stride: int = 1, squeeze: bool = False
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [*_conv(inputs, wide, 1), nn.ReLU()]
        layers += [*_conv(wide, wide, 3, stride, groups=wide), nn.ReLU()]
        if squeeze:
            layers.append(_Squeeze(wide))
        self.body = nn.Sequential(*layers, *_conv(wide, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Any) -> Any:
        result = self.body(features)
        return features + result if self.shortcut else result


class _Attention(nn.Module):  # type: ignore[misc]
    """Multi-head self-attention between the cells of a grid, with a shortcut."""

    def __init__(self, channels: int, heads: int, cells: int) -> None:
        super().__init__()
        self.heads, self.cells, self.width = heads, cells, channels // heads
        self.place = nn.Parameter(torch.zeros(1, cells, channels))
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, features: Any) -> Any:
        """Attend; `features` is (N, channels, height, width) with height * width cells."""
        tokens = features.flatten(2).transpose(1, 2)
        mixed = self.query_key_value(self.norm(tokens + self.place))
        mixed = mixed.reshape(-1, self.cells, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        query, key, value = mixed[0], mixed[1], mixed[2]
        scores = query @ key.transpose(-2, -1) * self.width**-0.5
        attended = (scores.softmax(dim=-1) @ value).transpose(1, 2)
        channels = self.heads * self.width
        tokens = tokens + self.project(attended.reshape(-1, self.cells, channels))
        side = int(self.cells**0.5)
        return tokens.transpose(1, 2).reshape(-1, channels, side, side)


class FieldGuideNet(nn.Module):  # type: ignore[misc]
    """Image (N, 3, 128, 128) to logits (N, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        grid = INPUT_SIDE // 16
        self.features = nn.Sequential(
            *_conv(3, 16, 3, stride=2),
            nn.ReLU(),
            *_conv(16, 32, 3, stride=2),
            nn.ReLU(),
            *_conv(32, 48, 3, stride=2),
            nn.ReLU(),
            _Residual(48),
            _Inverted(48, 96, expansion=3, stride=2, squeeze=True),
            _Inverted(96, 96, expansion=3, squeeze=True),
            _Attention(96, 4, grid * grid),
            *_conv(96, 192, 1),
            nn.ReLU(),
        )
        # The mean says what most of the grid shows, the maximum whether a mark is seen anywhere.
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.maximum = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(EMBEDDING, classes)

    def forward(self, image: Any) -> Any:
        """Classify; logits, not probabilities."""
        return self.classifier(self.embed(image))

    def embed(self, image: Any) -> Any:
        """Describe the image by `EMBEDDING` values, shape (N, EMBEDDING)."""
        grid = self.features(image)
        return torch.cat([self.mean(grid), self.maximum(grid)], dim=1).flatten(1)
