"""Derivatives of a network along a direction, by forward-mode automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch

from cm_ray.core.types import Images, Times


@dataclass(frozen=True, slots=True)
class Target:
    """The target network of a training step, which methods evaluate and differentiate without gradient."""

    plain: Callable[..., Images]
    """The network in the arithmetic of the training: a map (x_t, t), or (x_t, t, s) of two times."""
    precise: Callable[..., Images] | None = None
    """The same network in float32 and not compiled; None if `plain` is that."""

    def __call__(self, x_t: Images, t: Times, /) -> Images:
        """Return the clean images (b, c, h, w)."""
        return self.plain(x_t, t)

    def ending(self, s: Times) -> Self:
        """Return a target of two times as one of (x_t, t) alone, with its second time at s (b,)."""
        plain, precise = self.plain, self.precise

        def fixed(function: Callable[..., Images]) -> Callable[..., Images]:
            return lambda x_t, t: function(x_t, t, s)

        return replace(self, plain=fixed(plain), precise=None if precise is None else fixed(precise))

    def along(self, x_t: Images, t: Times, dx: Images, dt: Times) -> tuple[Images, Images]:
        """Return the clean images and their derivative along (dx, dt), each (b, c, h, w); see `along`.

        The derivative is that of the precise network: in bfloat16 its rounding would be larger than the
        differences that continuous-time methods learn from. The images are those of the plain one, so that
        they cancel against the student's.
        """
        if self.precise is None:
            return along(self.plain, x_t, t, dx, dt)
        return self.plain(x_t, t), along(self.precise, x_t, t, dx, dt)[1]


def along(
    function: Callable[[Images, Times], Images], x: Images, t: Times, dx: Images, dt: Times
) -> tuple[Images, Images]:
    """Return f(x, t) and its derivative along (dx, dt), that is df/dx dx + df/dt dt, each (b, c, h, w).

    x, dx: (b, c, h, w); t, dt: (b,). Each sample has its own direction. Nothing is kept for a backward pass.
    Attention is computed by PyTorch's plain kernel, since the fused ones have no forward mode. Raises
    RuntimeError when an operation of the function has none.
    """
    # not imported above: recipes import this module, and parse their options before torch is executed
    from torch.autograd import forward_ad
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from cm_ray.core.convolution_rule import TwoConvolutions

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level(), TwoConvolutions():
        moving = forward_ad.make_dual(x, dx), forward_ad.make_dual(t, dt)  # type: ignore[no-untyped-call]
        result = function(*moving)
        value, tangent = forward_ad.unpack_dual(result)  # type: ignore[no-untyped-call]
    return value, torch.zeros_like(value) if tangent is None else tangent
