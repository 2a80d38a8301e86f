"""Random order of the images of a source in its shards.

Streams shuffle the rows of a few row groups at a time. Of data that is sorted by class, as Parquet and .npz
files often are, they would make batches of few classes. Therefore rows lie in a random order in the shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 0
Keys = NDArray[np.uint64]
KeyRange = tuple[int, int | None]
"""The least key of a range, and the least key after it, None for the range of the greatest keys."""


class KeyStream:
    """Random keys of the images of one part of a source, one after the other."""

    def __init__(self, seed: int, part: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence((seed, part)))

    def take(self, count: int) -> Keys:
        """Return the keys of the next `count` images, uint64 (count,)."""
        return self._bits.random_raw(count)


@dataclass(frozen=True, slots=True)
class Permutation:
    """The order in which each image has a random key, a function of (seed, part, place in the part)."""

    seed: int
    parts: tuple[int, ...]
    """Number of images of each part of the source."""

    @classmethod
    def from_dict(cls, content: dict[str, Any] | None) -> Permutation | None:
        """Return the permutation that `dataclasses.asdict` gave; None for None.

        Raises KeyError, TypeError or ValueError on anything else.
        """
        if content is None:
            return None
        parts, seed = tuple(int(count) for count in content["parts"]), int(content["seed"])
        if min(parts, default=0) < 0:
            raise ValueError(f"parts of {parts} images")
        if seed < 0:
            raise ValueError(f"the seed {seed}")
        return cls(seed, parts)

    def keys(self) -> Keys:
        """Return the keys of all images, (n,), in the order of the source."""
        keys = [KeyStream(self.seed, part).take(count) for part, count in enumerate(self.parts)]
        return np.concatenate([np.empty(0, np.uint64), *keys])

    def places(self) -> NDArray[np.int64]:
        """Return the place in the source of each image of the shards, (n,)."""
        return np.argsort(self.keys(), kind="stable")


def key_ranges(keys: Keys, rows: int) -> list[KeyRange]:
    """Cut keys, given in any order, into ranges of `rows` keys each; the last may have fewer."""
    first: list[int] = np.sort(keys)[::rows].tolist()
    return list(zip(first, [*first[1:], None], strict=True))
