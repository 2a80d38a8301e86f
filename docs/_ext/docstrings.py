"""Docstrings are plain text with code between backquotes: other signs of reStructuredText mean themselves."""

import re

_CODE = re.compile(r"(`+[^`]+`+)")
_SIGNS = re.compile(r"[|*]|_(?!\w)")


def escape(app, what, name, obj, options, lines):
    """Let bars, stars and underscores at the ends of words stand for themselves, outside of code."""
    for number, line in enumerate(lines):
        parts = _CODE.split(line)
        lines[number] = "".join(
            part if part.startswith("`") else _SIGNS.sub(lambda sign: f"\\{sign[0]}", part) for part in parts
        )


def shorten(app, what, name, obj, options, signature, returned):
    """Leave out that a default value is made anew for each object."""
    return signature and signature.replace("=<factory>", "=…"), returned


def setup(app):
    """Register the changes."""
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", escape)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
