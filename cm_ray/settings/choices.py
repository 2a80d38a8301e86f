"""Choices among classes: a kind of setting is a protocol, and every class that fulfils it has a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_CLASSES: dict[type, dict[str, type]] = {}
_WORDS: dict[type, str] = {}


def choice(kind: type, word: str) -> Callable[[type[T]], type[T]]:
    """Decorate a frozen dataclass as a choice of `kind`, such as a distance, under a word.

    The word stands for the class on the command line, in config.json and in search spaces. Raises ValueError
    when another class has it already.
    """

    def register(cls: type[T]) -> type[T]:
        known = _CLASSES.setdefault(kind, {})
        if word in known and known[word].__qualname__ != cls.__qualname__:
            raise ValueError(f"{word!r} is {known[word].__name__} already, and cannot be {cls.__name__}, too")
        known[word] = cls
        _WORDS[cls] = word
        return cls

    return register


def classes_of(kind: Any) -> dict[str, type]:
    """Return the classes of a kind by their words; none when the type is not a choice."""
    return dict(_CLASSES.get(kind, {})) if isinstance(kind, type) else {}


def word_of(value: Any) -> str:
    """Return the word of a choice, given as an instance or as its class. Raises KeyError on others."""
    return _WORDS[value if isinstance(value, type) else type(value)]
