"""The rule of convolutions in forward-mode differentiation, without PyTorch's third convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode


class TwoConvolutions(TorchFunctionMode):
    """While this is entered, moving images are convolved twice: they, and their tangents.

    PyTorch's own rule convolves the images by a tangent of the weights as well, even where weights do not
    move and it is zero: half of the two in vain.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what the function does, of convolutions by the rule."""
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs:
            return _convolved(*args)
        return func(*args, **kwargs)


def _convolved(x: Any, weight: Any, bias: Any = None, *geometry: Any) -> Any:
    """Return the convolution of x by weights (b, c, h, w), moving where x alone moves."""
    (value, tangent), (_, of_weights) = (_parts(each) for each in (x, weight))
    if tangent is None or of_weights is not None:
        return torch.conv2d(x, weight, bias, *geometry)
    moved = torch.conv2d(tangent, weight, None, *geometry)
    value = torch.conv2d(value, weight, bias, *geometry)
    return forward_ad.make_dual(value, moved)  # type: ignore[no-untyped-call]


def _parts(x: Any) -> tuple[Any, Any]:
    return tuple(forward_ad.unpack_dual(x))  # type: ignore[no-untyped-call]
