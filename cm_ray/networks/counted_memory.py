"""Memory of a computation, counted on tensors without storage."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class CountedMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while the mode is active, until they are freed.

    device: on "cpu", convolutions of images with channels first have copies of these and of the results in
    another order, as oneDNN makes them.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self._reorders = device == "cpu"
        self.now = self.most = 0
        self._known: set[int] = set()

    def peak_from_now(self) -> int:
        """Begin to look for a peak, and return the bytes that are in use, to be taken off it."""
        self.most = self.now
        return self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        if self._reorders and func is torch.ops.aten.convolution.default:
            copied = sum(_in_another_order(images) for images in (args[0], result))
            self.most = max(self.most, self.now + copied)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _in_another_order(images: Tensor) -> int:
    """Return the bytes of a copy of the images, if it is made for a convolution on a CPU."""
    last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    return 0 if last else images.nbytes


def without_storage(module: nn.Module) -> nn.Module:
    """Replace all parameters and buffers by fake tensors on the CPU, a device that autocast supports.

    It is called in a FakeTensorMode. Returns the module.
    """
    for layer in module.modules():
        for name, p in layer.named_parameters(recurse=False):
            fake = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype)
            setattr(layer, name, nn.Parameter(fake, requires_grad=p.requires_grad))
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(layer, name, torch.empty_strided(buffer.shape, buffer.stride(), dtype=buffer.dtype))
    return module


def bytes_of(module: object) -> int:
    """Return the bytes of a module's parameters and buffers; what is no module has none."""
    if not isinstance(module, nn.Module):
        return 0
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
