"""A network of one's own in an importable module."""

import torch
from torch import nn


class TinyNetwork(nn.Module):
    """Two convolutions and the time."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Conv2d(shape[0] + 1, 8, 3, padding=1)
        self.last = nn.Conv2d(8, shape[0], 3, padding=1)

    def forward(self, x, time, labels=None):
        """Return the residual."""
        t = time[:, None, None, None].expand(-1, 1, *x.shape[2:]) / 1000
        return self.last(torch.relu(self.first(torch.cat([x, t], 1))))


class Pixels:
    """Four pixels as features, in the protocol of an extractor."""

    name, dim, weights_sha256, preprocess = "four pixels", 4, "", "none"

    def __init__(self, device):
        self.device = device

    def features(self, images):
        """Return the features (b, 4)."""
        return images[:, 0, 2:4, 2:4].float().flatten(1)
