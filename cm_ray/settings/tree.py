"""Trees of settings by dotted path: list, change, save and compare them.

A field whose type is a kind of `choices` holds one of several dataclasses. Its path stands for the word of
the class (``distance`` is ``pseudo-huber``) and longer paths for the fields of the class that was chosen
(``distance.c``). Fields marked INLINE lend their own fields to the tree that they stand in: a recipe's method
has a distance, and its path is ``distance``.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from cm_ray.errors import SettingError, closest
from cm_ray.own_code import read_name
from cm_ray.settings.choices import classes_of, word_of
from cm_ray.settings.values import cast

T = TypeVar("T")

INLINE: Mapping[str, Any] = {"inline": True}
"""Metadata of a field whose fields have no prefix in paths."""
WORD = "kind"
"""The key of a choice's word in JSON."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a tree of settings."""

    name: str
    hint: Any
    prefix: str
    """The prefix of the fields below this one: empty for inline fields."""
    classes: Mapping[str, type]
    """The classes that the field can hold, by their words; empty if it is no choice."""

    @property
    def nested(self) -> bool:
        """True when the field holds a dataclass."""
        return bool(self.classes) or dataclasses.is_dataclass(self.hint)


def fields_of(cls: type) -> list[Field]:
    """Return the fields of a dataclass of settings, in order."""
    return [
        Field(item.name, hint, "" if item.metadata.get("inline") else item.name + ".", classes_of(hint))
        for item, hint in _hints(cls)
    ]


@lru_cache(maxsize=256)
def _hints(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return [(item, hints[item.name]) for item in dataclasses.fields(cls) if item.init]


def flatten(config: Any) -> dict[str, Any]:
    """Return the settings by dotted path, in order; a choice is its word, followed by its fields."""
    return dict(_leaves(config, ""))


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for item in fields_of(type(config)):
        value = getattr(config, item.name)
        if item.classes:
            yield prefix + item.name, word_of(value)
        if item.nested:
            yield from _leaves(value, prefix + item.prefix)
        else:
            yield prefix + item.name, value


def choices_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of every choice, outer ones before those of the classes that they hold."""
    for item in fields_of(type(config)):
        if item.classes:
            yield prefix + item.name
        if item.nested:
            yield from choices_of(getattr(config, item.name), prefix + item.prefix)


def to_dict(config: Any) -> dict[str, Any]:
    """Return settings as nested dicts of JSON values; a choice has its word as ``kind``."""
    values: dict[str, Any] = {}
    for item in fields_of(type(config)):
        value = getattr(config, item.name)
        if item.nested:
            word = {WORD: word_of(value)} if item.classes else {}
            values[item.name] = word | to_dict(value)
        else:
            values[item.name] = list(value) if isinstance(value, tuple) else value
    return values


def from_dict(cls: type[T], values: Mapping[str, Any], path: str = "", file: str = "") -> T:
    """Return settings of class `cls` from what `to_dict` made; missing fields take their defaults.

    file: where the values were read; names of code are then `cm_ray.own_code.ReadName`.
    Raises SettingError on an unknown field, an unknown word, or a value of another type or out of range.
    """
    if not isinstance(values, Mapping):
        raise SettingError(path or cls.__name__, f"must be a group of settings, not {values!r}")
    known = {item.name: item for item in fields_of(cls)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise SettingError(path + name, f"is not a setting: {closest(name, list(known))}")
        item = known[name]
        nested = item.nested
        made = _from_json(item, value, path, file) if nested else cast(value, item.hint, path + name)
        arguments[name] = read_name(made, file) if file else made
    return build(cls, arguments, path)


def choice_from_dict(kind: Any, values: Mapping[str, Any], file: str = "") -> Any:
    """Return a choice of a kind from what `to_dict` made and its word. Raises SettingError as `from_dict`."""
    return _from_json(Field("", kind, "", classes_of(kind)), values, "", file)


def _from_json(item: Field, value: Any, path: str, file: str) -> Any:
    if not isinstance(value, Mapping):
        raise SettingError(path + item.name, f"must be a group of settings, not {value!r}")
    inner = {key: each for key, each in value.items() if key != WORD or not item.classes}
    cls = chosen(item, value.get(WORD), path) if item.classes else item.hint
    return from_dict(cls, inner, path + item.prefix, file)


def override(config: T, changes: Mapping[str, Any]) -> T:
    """Return settings with values put at dotted paths: ``distance`` to ``lpips``, ``distance.size`` to 0.

    All changes are made at once, so that rules between settings hold for the result alone. Where another
    class is chosen, fields of the same name keep their values, as far as the new class can have them. Raises
    SettingError on an unknown path, a field of a class that is not chosen, or a value that cannot be.
    """
    left = {str(path): value for path, value in changes.items()}
    drawn = _rebuilt(type(config), _values(config), left, "", _unchecked)
    if left:
        path = next(iter(left))
        raise SettingError(path, why_unknown(drawn, path))
    return _rebuilt(type(config), _values(config), {str(path): changes[path] for path in changes}, "", build)


def sketch(config: T, changes: Mapping[str, Any]) -> T:
    """Return settings with values put at dotted paths, as `override`, but without validating the result.

    It shows which fields there are under other classes, before they have values. Paths that the result lacks
    are ignored. Raises SettingError on an unknown word, or a value of another type.
    """
    return _rebuilt(type(config), _values(config), dict(changes), "", _unchecked)


Build = Callable[[type[Any], Mapping[str, Any], str], Any]


def _unchecked(cls: type[T], arguments: Mapping[str, Any], path: str) -> T:
    instance = object.__new__(cls)
    for name, value in arguments.items():
        object.__setattr__(instance, name, value)
    return instance


def _rebuilt(cls: type[T], values: Mapping[str, Any], changes: dict[str, Any], path: str, build: Build) -> T:
    """Return an instance of `cls` with these values and its share of `changes`, taken out of them."""
    arguments: dict[str, Any] = {}
    for item in fields_of(cls):
        name = path + item.name
        value = values[item.name] if item.name in values else default_of(cls, item.name)
        if item.nested:
            value = _rebuilt_nested(item, value, changes, path, build)
        elif name in changes:
            value = cast(changes.pop(name), item.hint, name)
        arguments[item.name] = value
    made: T = build(cls, arguments, path)
    return made


def _rebuilt_nested(item: Field, value: Any, changes: dict[str, Any], path: str, build: Build) -> Any:
    cls, values = type(value), _values(value)
    if path + item.name in changes:
        new = chosen(item, changes.pop(path + item.name), path)
        if not isinstance(new, type):
            cls, values = type(new), _values(new)
        elif new is not cls:
            cls, values = new, _kept(value, new)
    return _rebuilt(cls, values, changes, path + item.prefix, build)


def _values(config: Any) -> dict[str, Any]:
    return {item.name: getattr(config, item.name) for item in fields_of(type(config))}


def _kept(old: Any, new: type) -> dict[str, Any]:
    """Return the values of `old` that an instance of class `new` can have."""
    before = {item.name: item for item in fields_of(type(old))}
    return {
        item.name: getattr(old, item.name)
        for item in fields_of(new)
        if item.name in before and _fits(getattr(old, item.name), before[item.name], item)
    }


def _fits(value: Any, there: Field, here: Field) -> bool:
    if here.nested:
        return type(value) is here.hint or type(value) in here.classes.values()
    return there.hint == here.hint


def default_of(cls: type, name: str) -> Any:
    """Return the default of a field. Raises SettingError when it has none."""
    item = next(each for each in dataclasses.fields(cls) if each.name == name)
    if item.default is not dataclasses.MISSING:
        return item.default
    if item.default_factory is dataclasses.MISSING:
        raise SettingError(name, f"of {cls.__name__} must be given")
    return item.default_factory()


def chosen(item: Field, word: Any, path: str) -> type | Any:
    """Return the class that a word stands for; an instance of one of the classes is returned as it is.

    Raises SettingError on other words.
    """
    if type(word) in item.classes.values() or (not item.classes and type(word) is item.hint):
        return word
    if not item.classes:
        raise SettingError(path + item.name, f"is always {item.hint.__name__} here, and not {word!r}")
    if not isinstance(word, str) or word not in item.classes:
        raise SettingError(path + item.name, f"cannot be {word!r}: {closest(str(word), list(item.classes))}")
    return item.classes[word]


def why_unknown(config: Any, path: str) -> str:
    """Return what is wrong with a path that the settings do not have, as the end of a sentence."""
    known = flatten(config)
    for name, words in owners(type(config), path).items():
        if name in known and known[name] not in words:
            return f"belongs to {name} {_any_of(words)}, and {name} is {known[name]}"
    if named := [each for each in all_paths(type(config)) if each.rpartition(".")[2] == path]:
        return f"is not a setting: did you mean {' or '.join(map(repr, named))}?"
    return f"is not a setting: {closest(path, list(known))}"


def all_paths(cls: type, prefix: str = "") -> list[str]:
    """Return the paths of a tree of settings with those of all classes that could be chosen."""
    paths: dict[str, None] = {}
    for item in fields_of(cls):
        if item.classes or not item.nested:
            paths[prefix + item.name] = None
        for _, each in _held_by(item):
            paths |= dict.fromkeys(all_paths(each, prefix + item.prefix))
    return list(paths)


def _held_by(item: Field) -> list[tuple[str, type]]:
    """Return the classes that a field can hold, with their words; a class that is no choice has none."""
    return list(item.classes.items()) or ([("", item.hint)] if item.nested else [])


def owners(cls: type, path: str, prefix: str = "") -> dict[str, list[str]]:
    """Return the choices, outermost first, and their words that have a field at `path`."""
    found: dict[str, list[str]] = {}
    for item in fields_of(cls):
        for word, each in _held_by(item):
            if path not in all_paths(each, prefix + item.prefix):
                continue
            if item.classes:
                found.setdefault(prefix + item.name, []).append(word)
            for name, words in owners(each, path, prefix + item.prefix).items():
                found[name] = list(dict.fromkeys([*found.get(name, []), *words]))
    return found


def build(cls: type[T], arguments: Mapping[str, Any], path: str = "") -> T:
    """Return an instance of a class of settings; its own SettingError names the whole path."""
    try:
        return cls(**arguments)
    except SettingError as error:
        raise SettingError(path + error.path, error.problem) from error


def differences(old: T, new: T, free: tuple[str, ...]) -> list[str]:
    """Return how two trees differ, beside the paths in `free` and all below them."""
    before, after = flatten(old), flatten(new)
    return [
        f"{path} ({before.get(path, 'none')} there, {after.get(path, 'none')} here)"
        for path in {**before, **after}
        if before.get(path) != after.get(path)
        and not any(path == each or path.startswith(each + ".") for each in free)
    ]


def _any_of(words: Sequence[str]) -> str:
    """Return words as a phrase: a, b or c."""
    return " or ".join([*([", ".join(words[:-1])] if words[:-1] else []), words[-1]])
