"""Settings of a table of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cm_ray.errors import UserError
from cm_ray.networks.arithmetic import Precision

_RECIPES = ("ct_digits", "ct_cifar10", "ct_imagenet64", "cd_imagenet64", "ct_lsun256", "cd_lsun256")


@dataclass(frozen=True, kw_only=True)
class MemoryQuestion:
    """Estimate the memory of a training: cm-ray memory ct_imagenet64 --gib 40

    The step is counted on tensors without storage, so any machine can answer for any other: what a worker
    holds (weights, target, teacher, averages, moments, gradients and the optimizer's copies), what each image
    of its micro-batch adds, with and without --network.gradient-checkpointing, and the --accumulate that
    fits. --measure takes steps and compares.
    """

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPES")] = _RECIPES
    """Names of recipes; none: one of each network."""
    gib: float = 80.0
    """Memory of a worker's device in GiB, of which a fifth is left to PyTorch, libraries and gaps."""
    num_workers: int = 8
    """Workers; each takes its share of the batch."""
    precision: Precision | Literal[""] = ""
    """Precision of the networks; empty: the recipe's."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Autocast keeps more in float32 on GPUs."""
    measure: int = 0
    """Take two steps on this machine's device, too, with so many images at a time (minutes), and set what
    they took beside what was counted; 0: only count."""

    def __post_init__(self) -> None:
        """Raise UserError on a question that has no answer."""
        if self.gib <= 0 or self.num_workers < 1 or self.measure < 0:
            raise UserError("--gib must be positive, --num-workers at least 1, and --measure not negative.")
