"""A postponed import of PyTorch: `import torch` at the top of a module costs nothing until torch is used.

A command parses its options and checks its settings by modules that name torch but do not use it. The
standard library's `importlib.util.LazyLoader` does not serve here: in Python 3.11 the next `import` of a lazy
module loads it, since the import statement reads its `__spec__`.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

_LOADING = threading.RLock()


class _Postponed(ModuleType):
    """A module that is executed when an attribute of it is first read, set or deleted."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__spec__", "__class__"):  # what the import statement and `load` read
            return object.__getattribute__(self, name)
        load(self.__spec__.name)  # type: ignore[union-attr]
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        load(self.__spec__.name)  # type: ignore[union-attr]
        setattr(self, name, value)

    def __delattr__(self, name: str) -> None:
        load(self.__spec__.name)  # type: ignore[union-attr]
        delattr(self, name)


def postpone(name: str = "torch") -> None:
    """Put a postponed module into `sys.modules`, unless it is imported already or not installed.

    A following ``import torch`` binds it without executing it; the first use, ``from torch import X`` and
    ``import torch.nn`` execute it, and from then on it is an ordinary module. Only for programs of one thread
    until `load` has returned: another thread could see a module that is not yet complete.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Postponed
    sys.modules[name] = module


def load(name: str = "torch") -> None:
    """Execute a postponed module; do nothing with one that is not postponed.

    Raises what the module raises; it can then be imported again, as any module that failed.
    """
    with _LOADING:
        module = sys.modules.get(name)
        if module is None or object.__getattribute__(module, "__class__") is not _Postponed:
            return
        object.__setattr__(module, "__class__", ModuleType)
        spec = module.__spec__
        assert spec is not None
        assert spec.loader is not None
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise


def is_postponed(name: str = "torch") -> bool:
    """Return whether a module is in `sys.modules` without having been executed."""
    module = sys.modules.get(name)
    return module is not None and object.__getattribute__(module, "__class__") is _Postponed
