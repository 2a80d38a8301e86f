"""Documentation of settings: the string below each field of a dataclass, read from its source."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from functools import lru_cache


def field_documentation(cls: type, name: str) -> str:
    """Return the string below a field, as one line; empty if there is none. Inherited fields count."""
    for each in cls.__mro__:
        if name in (documented := _documented(each)):
            return documented[name]
    return ""


@lru_cache(maxsize=256)
def _documented(cls: type) -> dict[str, str]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):  # object, or a class without a file
        return {}
    node = ast.parse(textwrap.dedent(source)).body[0]
    body = node.body if isinstance(node, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
