"""Draws of the classes of samples, as a function of the seed and the index of each sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm_ray.core.guidance import NULL_LABEL
from cm_ray.core.noise import Purpose, uniform
from cm_ray.core.types import Labels

BALANCED, DATA, NULL = "balanced", "data", "null"
"""Words for draws: every class that occurs equally often, as often as in the data, or the null class."""


@dataclass(frozen=True, slots=True)
class LabelDraw:
    """A draw of classes, each with a probability in proportion to its weight.

    The class of sample i is a function of the seed and i: it is the same in any batch, and whatever the
    number of samples. The classes are drawn independently, so that n samples have them only about as often as
    their weights say; the standard errors of scores cover that.
    """

    weights: tuple[int, ...]
    """Weight of each class, by its number; a class of weight 0 is never drawn. All are 0 for `NULL`."""
    text: str
    """Name of the draw in the keys of scores: `BALANCED`, `DATA`, `NULL`, or the names of the classes."""

    def __post_init__(self) -> None:
        """Raise ValueError on negative weights, or when there is no class to draw."""
        if min(self.weights, default=-1) < 0 or (not any(self.weights) and self.text != NULL):
            raise ValueError(f"there is no class to draw by the weights {self.weights}")

    @classmethod
    def balanced(cls, classes: int, counts: Sequence[int] = ()) -> LabelDraw:
        """Return the uniform draw over the classes that occur.

        counts: number of images of each class; empty where it is not known, and all classes are drawn.
        """
        return cls(tuple(int(count > 0) for count in counts) or (1,) * classes, BALANCED)

    @classmethod
    def null(cls, classes: int) -> LabelDraw:
        """Return the draw of the null class alone, of a network of so many other classes."""
        return cls((0,) * classes, NULL)

    @property
    def is_null(self) -> bool:
        """True if every sample is of the null class."""
        return not any(self.weights)

    def labels(self, indices: Tensor, seed: int) -> Labels:
        """Return the classes of the samples with these indices, int64 (b,), on the device of the indices."""
        if self.is_null:
            return torch.full_like(indices, NULL_LABEL)
        common = math.gcd(*self.weights)  # equal weights draw as weights of 1 do, to the bit
        edges = torch.tensor([*itertools.accumulate(weight // common for weight in self.weights)])
        draws = uniform(seed, 0, indices, Purpose.LABELS, (1,))[:, 0].double()
        return torch.bucketize((draws * int(edges[-1])).long(), edges.to(indices.device), right=True)

    @property
    def drawn(self) -> tuple[int, ...]:
        """The numbers of the classes that can be drawn."""
        return tuple(number for number, weight in enumerate(self.weights) if weight)


def label_name(names: Sequence[str], label: int) -> str:
    """Return the name of a class, or "null" of the null class."""
    return NULL if label == NULL_LABEL else names[label]
