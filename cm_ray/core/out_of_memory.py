"""Running out of memory, on a GPU or in the process, as one sentence that names the setting to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from cm_ray.errors import UserError

_MESSAGES = ("can't allocate memory", "not enough memory", "ALLOC_FAILED", "out of memory")
"""Parts of the RuntimeErrors of PyTorch's allocator on CPUs, and of cuDNN's and cuBLAS's workspaces."""


@contextlib.contextmanager
def in_memory(what: str, advice: str) -> Iterator[None]:
    """Raise UserError when the block runs out of memory.

    what: the subject of the sentence, such as "256 samples at a time". advice: what to do about it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{what} need more memory than there is; {advice}.") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an exception that means that an allocation failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)
