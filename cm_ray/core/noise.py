"""Random numbers as a function of (seed, step, position, purpose): Philox4x32-10 in PyTorch integers.

With a stateful generator, the noise of a sample depends on everything drawn before. Here it is a pure
function of its arguments. So a resumed run draws the same numbers as an uninterrupted one, a sample has
the same noise in any batch and on any worker, CPU and GPU agree (integers bit for bit, normals to
rounding), and no state needs to be saved.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (constants, ten rounds).
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Sequence

import torch

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


@enum.unique
class Purpose(enum.IntEnum):
    """The purpose of random numbers; each purpose is an independent stream."""

    NOISE = 0
    TIMES = 1
    FLIP = 2
    SAMPLE = 3
    LABELS = 4
    EDIT = 5
    """Noise of edits, which differs from the noise of samples: an edited sample is not its own result."""
    DEQUANTISATION = 6
    """Uniform noise that makes 8-bit pixels continuous."""
    PROBES = 7
    """Signs of the vectors that estimate a trace."""
    LABEL_DROPOUT = 8
    """The choice of the labels of a training step that the null class replaces."""
    GUIDANCE = 9
    """Guidance scales of a training step."""
    AUGMENTATION = 10
    """The choice of the images of a training step that are transformed, and their angles."""
    AUGMENTATION_NORMAL = 11
    """Sizes, stretches and translations of these transformations."""


def uniform(
    seed: int, step: int, positions: torch.Tensor, purpose: Purpose, shape: Sequence[int] = ()
) -> torch.Tensor:
    """Return uniform numbers in (0, 1), float32 (b, *shape), one row per position.

    positions: int64 (b,), positions in the global batch or sample indices, below 2^32. step: training
    step, or index of a sampling step, in [0, 2^32). The result is on the device of `positions`.
    """
    count = math.prod(shape)
    words = _words(seed, step, positions, purpose, (count + 3) // 4)
    return _to_unit(words)[:, :count].reshape(len(positions), *shape)


def normal(
    seed: int, step: int, positions: torch.Tensor, purpose: Purpose, shape: Sequence[int] = ()
) -> torch.Tensor:
    """Return standard normal numbers, float32 (b, *shape), one row per position; see `uniform`.

    Box-Muller on pairs of 32-bit uniforms: the tails reach 6.6 standard deviations.
    """
    count = math.prod(shape)
    u = _to_unit(_words(seed, step, positions, purpose, (count + 3) // 4))
    half = u.shape[1] // 2
    radius, angle = (-2.0 * u[:, :half].log()).sqrt(), (2.0 * math.pi) * u[:, half:]
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :count].reshape(len(positions), *shape)


def derived_seed(seed: int, *words: int | str) -> int:
    """Return a 63-bit seed that depends on all of `words`, for stateful generators."""
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def philox(counter: Sequence[torch.Tensor], key: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Apply Philox4x32-10: four counters and two key words, 32 bits each, to four words.

    Words are the low 32 bits of int64: products may overflow, and masks remove the high bits.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _words(seed: int, step: int, positions: torch.Tensor, purpose: Purpose, blocks: int) -> torch.Tensor:
    """Return (b, 4 * blocks) words: the counter is (block, position, step, purpose), the key the seed."""
    block = torch.arange(blocks, device=positions.device).expand(len(positions), blocks)
    position = positions.reshape(-1, 1).expand_as(block)
    key = derived_seed(seed)
    counter = (block, position, torch.full_like(block, step), torch.full_like(block, int(purpose)))
    return torch.cat(philox(counter, (key & _MASK, (key >> 32) & _MASK)), dim=1)


def _to_unit(words: torch.Tensor) -> torch.Tensor:
    """Map 32-bit words into the open interval (0, 1), in float32 that never rounds to 1."""
    return ((words.double() + 0.5) * 2.0**-32).float().clamp(max=1.0 - 2.0**-24)
