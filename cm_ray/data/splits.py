"""Words for the splits of a data set in names of files, folders and arrays; pure functions of names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cm_ray.errors import UserError, closest

SPLIT_WORDS = (
    ("train", "training"),
    ("val", "valid", "validation", "dev"),
    ("test", "testing"),
    ("eval",),
)
"""Words for training, validation, test and evaluation: the words of a group mean the same split."""

_KINDS = {word: words[0] for words in SPLIT_WORDS for word in words}
_LETTERS = re.compile(r"[^\W\d_]+")


def split_word(name: str) -> str:
    """Return the split word that a name begins or ends with, in small letters; "" when there is none.

    name: of a file (without its ending), a folder or an array. The word must be a whole word, which stands
    between signs that are no letters: `imgs-val`, `train2017` and `Training_set` have one, `contest` has
    none. A name that begins with one split and ends with another, such as `train-test`, has none either.
    """
    words = _LETTERS.findall(name.lower())
    ends = [word for word in (*words[:1], *words[-1:]) if word in _KINDS]
    return ends[0] if len({_KINDS[word] for word in ends}) == 1 else ""


def same_split(word: str, other: str) -> bool:
    """Return True if two words mean the same split, in capitals or not: `valid` and `Validation` do."""
    return _kind(word) == _kind(other)


def _kind(word: str) -> str:
    return _KINDS.get(word.lower(), word.lower())


def chosen_split(words: Iterable[str], asked: str, place: str) -> str:
    """Return the word of the split that is to be read, among the words of the splits that there are.

    asked: a word of the user, "" when none is given: then it is the split for training, or the only one.
    place: the data set in messages. Raises UserError when there is no such split, or when several are meant.
    """
    known = sorted(set(words))
    wanted = asked or "train"
    exact = [word for word in known if asked and word.lower() == asked.lower()]
    found = exact or [word for word in known if same_split(word, wanted)]
    if not asked and not found and len(known) == 1:
        return known[0]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(known)
    if found:
        raise UserError(f"{place} has the splits {listed}, and several mean {wanted!r}; name one with split.")
    if asked:
        raise UserError(f"{place} has no split {asked!r}; {closest(asked, known)}")
    raise UserError(f"{place} has the splits {listed}, and none is for training; choose one with split.")


def no_split(place: str, asked: str) -> UserError:
    """Return the error for a split that is asked of data without splits."""
    return UserError(f"{place} has no split {asked!r}, since it is not divided into splits; leave split out.")
