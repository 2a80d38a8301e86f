"""Words for the splits of a data set in names of files, folders and arrays; pure functions of names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from cm_ray.errors import UserError, closest

SPLIT_WORDS = (
    ("train", "training"),
    ("val", "valid", "validation", "dev"),
    ("test", "testing"),
    ("eval",),
)
"""Words for training, validation, test and evaluation: the words of a group mean the same split."""

SPLIT_KEYS = ("split", "subset", "partition")
"""Names of folders `key=value` and of columns that tell the split."""
_KINDS = {word: words[0] for words in SPLIT_WORDS for word in words}
_LETTERS = re.compile(r"[^\W\d_]+")
_HUB_FILE = re.compile(r"(.+?)-\d{5,}-of-\d{5,}(-[0-9a-f]+)?")


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


def files_of_split(stems: Sequence[str], asked: str, place: str) -> tuple[list[int], str, list[str]]:
    """Return the indices of the files of a split, its word and the words of the other splits.

    stems: names of files without their endings. Files whose names have no split word make up a data set
    without splits, whose word is "". In names of the Hugging Face hub, `NAME-00000-of-00005`, any NAME is a
    split. asked, place: see `chosen_split`. Raises UserError when there is no such split, and when some names
    have a split word and others none.
    """
    words, certain = _words_of_files(stems)
    if not any(words):
        return list(range(len(stems))), "", []
    odd = next((stem for stem, word in zip(stems, words, strict=True) if word.lower() not in _KINDS), None)
    known = [word for word in words if word.lower() in _KINDS]
    if known and odd is not None and not (asked and certain):
        way = "choose one of them with split" if certain else "move it away"
        raise UserError(
            f"{place} holds files of the splits {', '.join(sorted({*known}))}, and {odd} of none; {way}."
        )
    split = chosen_split(words, asked, place)
    return [i for i, word in enumerate(words) if word == split], split, sorted({*words} - {split})


def is_hub_name(stem: str) -> bool:
    """Return True for a name, without its ending, that the hub gives to files: `train-00000-of-00005`."""
    return bool(_HUB_FILE.fullmatch(stem))


def _words_of_files(stems: Sequence[str]) -> tuple[list[str], bool]:
    """Return the word of each file, and whether the names are the hub's, so that no word is a guess."""
    found = [match[1] for stem in stems if (match := _HUB_FILE.fullmatch(stem))]
    if len(found) < len(stems):
        return [split_word(stem) for stem in stems], False
    words = {name: split_word(name) or name for name in found}
    shared = Counter(words.values())
    return [name if shared[words[name]] > 1 else words[name] for name in found], True
