"""Functions of the page as Gradio calls them: a refusal becomes a message on the page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from cm_ray.errors import UserError
from cm_ray.page.playground import Frame


def shown(gr: Any, function: Callable[..., Iterator[Frame]]) -> Callable[..., Iterator[tuple[Any, str]]]:
    """Return a generator function for Gradio; a UserError becomes a message on the page."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Iterator[tuple[Any, str]]:
        try:
            yield from function(*values)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapped


def refusing(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function for Gradio; a UserError becomes a message on the page."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        try:
            return function(*values)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapped
