"""Fake tensors for the tests of devices."""

import pytest
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.fixture(scope="session")
def fake():
    """Return the mode of fake tensors: one for all tests, as tensors of two do not mix."""
    return FakeTensorMode(allow_non_fake_inputs=False)


@pytest.fixture
def modules_move(monkeypatch):
    """Replace weights when a module moves: those of fake tensors cannot be exchanged in place."""

    def apply(module, convert, recurse=True):
        for child in module.children():
            child._apply(convert)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = convert(parameter.detach())
                module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else convert(buffer)
        return module

    monkeypatch.setattr(nn.Module, "_apply", apply)
