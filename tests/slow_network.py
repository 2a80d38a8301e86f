"""A network that takes its time, for trainings under which something has to happen."""

import time

from tests.networks.custom_networks import TinyNetwork


class SlowNetwork(TinyNetwork):
    """A tiny network whose evaluations last."""

    seconds = 0.1

    def forward(self, x, time_, labels=None):
        if x.device.type != "meta":
            time.sleep(self.seconds)
        return super().forward(x, time_, labels)
