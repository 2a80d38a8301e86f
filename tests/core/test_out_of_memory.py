"""Running out of memory is one sentence that names a setting; other errors stay what they are."""

import pytest
import torch

from cm_ray.core.out_of_memory import in_memory, is_out_of_memory
from cm_ray.errors import UserError

TOO_MUCH = 1 << 60


def real_error():
    with pytest.raises(RuntimeError) as told:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    return told.value


ERRORS = [
    real_error,
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError,
]


@pytest.mark.parametrize("error", ERRORS)
def test_what_means_too_little_memory(error):
    made = error()
    assert is_out_of_memory(made)
    with pytest.raises(UserError) as told, in_memory("9 samples at a time", "take fewer"):
        raise made
    assert str(told.value) == "9 samples at a time need more memory than there is; take fewer."


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("out of memory"), UserError("x")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as told, in_memory("9 samples", "take fewer"):
        raise error
    assert told.value is error
