"""The page of all jobs, made of the docstrings of jobs/*.py and of what they answer to --help."""

import contextlib
import io
import os
import re
import runpy
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]
PAGE = "jobs"
MARK = "<!-- all jobs -->"
GROUPS = {
    "Train a recipe": ("train", "ict_", "ct_", "ect_", "edm_", "cd_", "pd_"),
    "Use a model": ("sample", "evaluate", "likelihood", "edit", "export", "app", "serve"),
    "Choose settings": ("sweep", "time_points", "averages", "memory"),
    "Data, tables and tracking": ("make_shards", "paper_table", "track"),
}
"""Headings, and the beginnings of the names of the scripts below them."""


def scripts():
    """Return the scripts of jobs/ below their headings; those of no heading below the last one."""
    left = sorted(path for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__")
    groups = {}
    for heading, beginnings in GROUPS.items():
        found = [path for path in left if path.stem.startswith(beginnings)]
        groups[heading] = sorted(found, key=lambda path: _place(path.stem, beginnings))
        left = [path for path in left if path not in found]
    groups[heading] += left
    return groups


def _place(name, beginnings):
    return next(place for place, beginning in enumerate(beginnings) if name.startswith(beginning)), name


def said(script):
    """Return the docstring of a script: what it does, and a command."""
    document = runpy.run_path(str(script), run_name="documented")["__doc__"]
    what, command = re.split(r" {3}|\n+", document.strip(), maxsplit=1)
    return what, command.strip()


def options(script):
    """Return what a script answers to --help, from its own parser, in this process."""
    from cm_ray.command_line import main

    answer = io.StringIO()

    def job(*words):
        with contextlib.suppress(SystemExit):
            main.run([*words, "--help"], prog=f"python jobs/{script.name}")

    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(main, "job", job))
        stack.enter_context(mock.patch.dict(os.environ, plain))
        stack.enter_context(contextlib.redirect_stdout(answer))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        runpy.run_path(str(script), run_name="__main__")
    text = answer.getvalue().rstrip()
    assert text, f"jobs/{script.name} answers nothing to --help"
    return text


def section(script):
    """Return the Markdown of a script."""
    what, command = said(script)
    return "\n".join(
        [
            f"### jobs/{script.name}",
            "",
            f"{what}\n\n```bash\n{command}\n```\n",
            f"::::{{dropdown}} python jobs/{script.name} --help\n",
            f"```text\n{options(script)}\n```\n::::\n",
        ]
    )


def write(app, docname, content):
    """Put the sections of all scripts in the place of the mark."""
    if docname == PAGE:
        assert MARK in content[0]
        parts = [f"## {heading}\n\n" + "\n".join(map(section, found)) for heading, found in scripts().items()]
        content[0] = content[0].replace(MARK, "\n".join(parts))


def setup(app):
    """Register the page."""
    app.connect("source-read", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
