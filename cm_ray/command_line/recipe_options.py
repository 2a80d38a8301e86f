"""Options of a recipe: a word chooses a class of settings, and the options of its fields follow.

``--distance pseudo-huber --distance.c 0.03``. The words are read first, since they decide which options there
are; then tyro parses the options of the classes that were chosen and prints the help.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cm_ray.command_line.options import EPILOGUE
from cm_ray.command_line.tyro_refusals import one_sentence
from cm_ray.errors import SettingError, UserError, setting
from cm_ray.own_code import allow, is_name
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.choices import word_of
from cm_ray.settings.documentation import field_documentation
from cm_ray.settings.tree import (
    Field,
    all_paths,
    choices_of,
    fields_of,
    flatten,
    from_dict,
    override,
    sketch,
    why_unknown,
)
from cm_ray.storage.files import read_json

ALIASES = {
    "data.path": "--data",
    "teacher.model": "--teacher",
    "init_from.model": "--init-from",
    "cluster.num_workers": "--num-workers",
    "cluster.wait_for_nodes": "--wait-for-nodes",
    "tracking.uri": "--tracking-uri",
}
"""Short options, by path."""
_WORD = "word_"
"""The field of a parsed group that holds the word of its class."""
_EPILOGUE = (
    "A word, such as --distance pseudo-huber, chooses a class of settings. Its own options follow, and "
    "--help lists those of the chosen classes. --config FILE takes the settings from a file, such as the "
    "config.json of a run; name another --run-dir. --own-code package.module:name … allows code that this "
    f"file, a teacher or --init-from names. {EPILOGUE}"
)


class UnknownOption(SettingError):
    """An option, by the path that it would have, that the chosen settings do not have."""

    @property
    def marked(self) -> str:
        """The sentence, which begins with the option as it was typed."""
        return option(self.path) + super().marked.partition(setting(self.path))[2]


def parse_recipe(
    default: Recipe, arguments: Sequence[str], description: str = "", *, prog: str | None = None
) -> Recipe:
    """Return a recipe with the options of a command line in it.

    See `parse_changes`, which reads them.
    """
    return override(*parse_changes(default, arguments, description, prog=prog))


def parse_changes(
    default: Recipe, arguments: Sequence[str], description: str = "", *, prog: str | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe that options are for, and the settings, by dotted path, that they give.

    ``--config FILE`` replaces the default, and ``--own-code`` names code of its own, as options that set a
    network or an extractor do. Prints help and exits on ``--help``. Raises SettingError, by the
    path of the setting, on options that there are not, that belong to a class that was not chosen, or whose
    values cannot be.
    """
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    files.add_argument("--config", default="")
    files.add_argument("--own-code", nargs="+", action="extend", default=[])
    found, left = files.parse_known_args(list(arguments))
    allow(found.own_code + _typed_code(left))
    if found.config:
        default = recipe_from_file(Path(found.config))
    words, left = _words(default, left)
    chosen = sketch(default, words)
    kind, values = _parsed_class(chosen)
    text = f"{description.strip()}\n\n{_EPILOGUE}"
    with one_sentence(left):
        parsed, unknown = tyro.cli(
            kind, prog=prog, default=values, args=left, description=text, return_unknown_args=True
        )
    _refuse(unknown, chosen)
    before = flatten(chosen)
    typed = {_without_no(_path_of(argument)) for argument in left}
    after = {path: value for path, value in _leaves(parsed, "") if before[path] != value or path in typed}
    return default, {**words, **after}


def recipe_from_file(file: Path) -> Recipe:
    """Return the recipe in a config.json, for a run of its own. Raises UserError when there is none."""
    if not file.is_file():
        raise UserError(f"--config {file} does not exist: give a run's config.json.")
    try:
        return override(
            from_dict(Recipe, read_json(file), file=str(file)), {"run_dir": "", "tracking.parent_run": ""}
        )
    except SettingError as error:
        raise UserError(f"--config {file}: {error}") from error


def option(path: str) -> str:
    """Return the option of a setting's path."""
    return "--" + path.replace("_", "-")


def _typed_code(arguments: list[str]) -> list[str]:
    """Return the code of one's own that options of the command line name."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for path in ("network.path", "evaluation.extractor"):
        options.add_argument(option(path), dest=path, default="")
    typed = vars(options.parse_known_args(arguments)[0]).values()
    return [name for name in typed if is_name(name)]


def _words(default: Recipe, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take the words of choices off the arguments, by path."""
    words: dict[str, str] = {}
    while True:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for path in choices_of(sketch(default, words)):
            if path not in words:
                parser.add_argument(option(path), dest=path, default=argparse.SUPPRESS)
        found, arguments = parser.parse_known_args(arguments)
        if not vars(found):
            return words, arguments
        words |= vars(found)


def _parsed_class(config: Any, path: str = "", word: tuple[str, Field] | None = None) -> tuple[type, Any]:
    """Return a dataclass for tyro with the fields of a tree, and an instance of it with their values."""
    fields = [_word_field(*word, config)] if word else []
    fields += _option_fields(config, path)
    document = (type(config).__doc__ or "").strip().partition("\n")[0]
    namespace = {"__doc__": f"{type(config).__name__}: {document}" if path else document}
    kind = dataclasses.make_dataclass(
        type(config).__name__,
        [
            (name, hint, dataclasses.field(default_factory=partial(_same, value)))
            for name, hint, value in fields
        ],
        kw_only=True,
        namespace=namespace,
    )
    return kind, kind()


def _same(value: Any) -> Any:
    return value


def _word_field(path: str, item: Field, value: Any) -> tuple[str, Any, str]:
    hint: Any = Literal.__getitem__(tuple(item.classes))
    settings = tyro.conf.arg(name=option(path)[2:], prefix_name=False, help=_help(item))
    return _WORD, Annotated[hint, settings], word_of(value)


def _option_fields(config: Any, path: str) -> list[tuple[str, Any, Any]]:
    fields: list[tuple[str, Any, Any]] = []
    for item in fields_of(type(config)):
        value, name = getattr(config, item.name), path + item.name
        if not item.nested:
            aliases = (ALIASES[name],) if name in ALIASES else None
            document = field_documentation(type(config), item.name)
            fields.append(
                (item.name, Annotated[item.hint, tyro.conf.arg(help=document, aliases=aliases)], value)
            )
        elif item.prefix:
            kind, inner = _parsed_class(value, path + item.prefix, (name, item) if item.classes else None)
            fields.append((item.name, kind, inner))
        else:
            fields.append((item.name, *_word_field(name, item, value)[1:]))
            fields += _option_fields(value, path)
    return fields


def _help(item: Field) -> str:
    lines = [f"{word}: {(each.__doc__ or '').strip().splitlines()[0]}" for word, each in item.classes.items()]
    return "\n".join(lines)


def _leaves(parsed: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of all parsed options, without the words."""
    for item in dataclasses.fields(parsed):
        value = getattr(parsed, item.name)
        if item.name == _WORD or (not prefix and item.name == "method"):
            continue
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


def _refuse(unknown: list[str], chosen: Recipe) -> None:
    """Raise SettingError on the first argument that is left."""
    for argument in unknown:
        if not argument.startswith("--"):
            raise UserError(f"{argument!r} is not an option: options begin with --.")
        path = _path_of(argument)
        problem = why_unknown(chosen, _without_no(path))
        raise UnknownOption(path, re.sub(r"'([\w.]+)'(?= or |\?$)", lambda near: option(near[1]), problem))


def refuse_unheard_of(arguments: Sequence[str], default: Recipe) -> None:
    """Raise SettingError on the first option that no choice of settings would have.

    It serves before anything is read that decides which options there are.
    """
    heard_of = {*all_paths(Recipe), "config", "own_code"}
    options = [each for each in arguments if re.match("--[a-z]", each)]
    _refuse([each for each in options if _without_no(_path_of(each)) not in heard_of], default)


def _path_of(argument: str) -> str:
    """Return the path of the setting that an argument, if it is an option, is the option of."""
    name = argument.removeprefix("--").partition("=")[0]
    return {short[2:]: long for long, short in ALIASES.items()}.get(name, name.replace("-", "_"))


def _without_no(path: str) -> str:
    """Return the path of the setting that an option such as --data.no-horizontal-flip turns off."""
    return path.replace(".no_", ".").removeprefix("no_")
