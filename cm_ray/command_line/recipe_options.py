"""Options of a training: a preset's settings, changed by a file and by the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cm_ray.command_line.options import EPILOGUE, parse
from cm_ray.errors import UserError
from cm_ray.recipes import PRESETS, preset
from cm_ray.recipes.config import ALIASES, TrainConfig, from_dict, override
from cm_ray.storage.files import read_json

SHORT = {**ALIASES, "--tracking-uri": "--tracking.uri"}
"""Short options of a training, and the settings that they are."""

DESCRIPTION = """Train a preset: cm-ray train ct_cifar10 --data /data/cifar10 --num-workers 8

Ray Data streams the images to Ray Train workers. The same command goes on after an interruption."""

_CONFIG = "--config FILE takes its settings from a file, such as a run's config.json; name another --run-dir."


def parse_recipe(words: Sequence[str], *, prog: str | None = None) -> TrainConfig:
    """Return the settings of a training that a command line gives: the name of a preset, and options.

    ``--config FILE`` replaces the preset's settings by a file's, and options change them. Exits and raises as
    `cm_ray.command_line.options.parse`.
    """
    arguments = [_spelt_out(word) for word in words]
    chosen = _from_file(_preset(arguments), arguments)
    config: TrainConfig = parse(chosen, arguments, prog=prog, description=f"{DESCRIPTION}\n\n{_CONFIG}")
    from cm_ray.recipes.checks import check  # by the mathematics, which loads torch

    check(config)
    return config


def _spelt_out(argument: str) -> str:
    """Return an argument with a short option replaced by the setting that it is."""
    name, *value = argument.split("=", 1)
    return "=".join([SHORT.get(name.replace("_", "-"), name), *value])


def _preset(arguments: list[str]) -> TrainConfig:
    """Take the preset's name off the arguments."""
    if arguments[:1] and not arguments[0].startswith("-"):
        return preset(arguments.pop(0))
    known = ", ".join(PRESETS)
    if arguments[:1] in (["--help"], ["-h"]):
        print(f"{DESCRIPTION}\n\n{EPILOGUE}\n\nPresets: {known}. PRESET --help shows all settings.")
        sys.exit(0)
    raise UserError(f"Name a preset first: {known}.")


def _from_file(default: TrainConfig, arguments: list[str]) -> TrainConfig:
    """Take ``--config FILE`` off the arguments and return its settings, else the default."""
    for place, argument in enumerate(arguments):
        name, *value = argument.split("=", 1)
        if name == "--config":
            file = value[0] if value else (arguments[place + 1 : place + 2] or [""])[0]
            del arguments[place : place + (1 if value else 2)]
            if not Path(file).is_file():
                raise UserError(f"--config {file} is not there; give a run's config.json.")
            config = from_dict(TrainConfig, read_json(Path(file)))
            return override(config, {"run_dir": "", "tracking.parent_run": ""})
    return default
