"""Values of single settings: from JSON or from anywhere else to the type of their field."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from cm_ray.errors import SettingError, closest


def cast(value: Any, hint: Any, path: str) -> Any:
    """Return `value` as a field's type: JSON's lists become tuples, and its integers floats.

    Raises SettingError when it is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and type(value) in arguments:
        return value
    if origin is Literal:
        if value not in arguments:
            raise SettingError(
                path, f"cannot be {value!r}: {closest(str(value), [str(a) for a in arguments])}"
            )
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(cast(item, arguments[0], path) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and (type(value) is hint or (hint is str and isinstance(value, str))):
        return value
    wanted = hint.__name__ if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else hint
    raise SettingError(path, f"must be {wanted}, not {value!r}")
