"""Networks and extractors that need more memory than any machine has."""

import torch

from tests.networks.custom_networks import TinyNetwork

TOO_MUCH = 1 << 60


def eat(*_, **__):
    """Ask for an exbibyte."""
    return torch.empty(TOO_MUCH, dtype=torch.uint8)


class HungryExtractor:
    name, dim, weights_sha256, preprocess = "hungry", 4, "00" * 32, ""

    def features(self, images):
        return eat()


def open_hungry(device):
    return HungryExtractor()


class HungryNetwork(TinyNetwork):
    """A network that has no memory to train."""

    hungry_in = "training"

    def forward(self, x, time, labels=None):
        if x.device.type != "meta" and self.training == (self.hungry_in == "training"):
            eat()
        return super().forward(x, time, labels)


class HungrySamples(HungryNetwork):
    """A network that trains, but has no memory to sample."""

    hungry_in = "sampling"
