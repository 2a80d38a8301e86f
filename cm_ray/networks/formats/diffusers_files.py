"""Files of weights in a folder of diffusers: their variants, such as fp16, and their shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cm_ray.errors import UserError, tell_once
from cm_ray.networks.formats.state_dicts import state_dict
from cm_ray.networks.formats.weight_files import Weights, as_float32
from cm_ray.networks.weight_names import few
from cm_ray.storage.files import read_json
from cm_ray.storage.tensor_files import check_finite, read_tensor_file

STEM = "diffusion_pytorch_model"
_NAME = re.compile(rf"{STEM}(?:\.(?P<variant>[\w-]+))?\.(safetensors|bin)")
_INDEX = re.compile(rf"{STEM}\.(safetensors|bin)\.index(?:\.(?P<variant>[\w-]+))?\.json")
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\..*")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file of weights, or an index of several."""

    file: Path
    variant: str
    """Such as fp16; empty for the full precision."""

    @property
    def order(self) -> tuple[bool, bool]:
        """Endings in the order of preference: safetensors before .bin, one file before an index."""
        return ".bin" in self.file.name, self.file.suffix == ".json"


def weight_files(folder: Path) -> list[WeightFile]:
    """Return the files of weights in a folder, the best of each variant, full precision first."""
    best: dict[str, WeightFile] = {}
    for file in sorted(folder.glob(f"{STEM}*")):
        if _SHARD.fullmatch(file.name):
            continue
        if match := _NAME.fullmatch(file.name) or _INDEX.fullmatch(file.name):
            found = WeightFile(file, match["variant"] or "")
            known = best.setdefault(found.variant, found)
            best[found.variant] = min(known, found, key=lambda each: each.order)
    return [best[variant] for variant in sorted(best)]


def read_weights(folder: Path) -> tuple[Weights, Path]:
    """Return the weights in a folder by diffusers' names, in float32, and their file.

    Full precision is taken, else the only variant. Raises UserError when there are no weights, several
    variants alone, a shard is missing, or values are not finite.
    """
    found = weight_files(folder)
    if not found:
        raise UserError(f"{folder} holds no weights; put {STEM}.safetensors there.")
    taken = found[0]
    if taken.variant and len(found) > 1:
        raise UserError(
            f"{folder} holds several variants of its weights ({few(each.file.name for each in found)}): "
            "give one of these files instead of the folder."
        )
    if taken.variant:
        tell_once(f"{folder}: took the variant {taken.variant} of the weights, {taken.file.name}.")
    return read_weight_file(taken.file), taken.file


def check_whole(file: Path) -> None:
    """Raise UserError when a file is one of several shards by its name."""
    if _SHARD.fullmatch(file.name):
        raise UserError(f"{file} is one of several shards: give their folder.")


def read_weight_file(file: Path) -> Weights:
    """Return the weights in a file, or in the shards that an index lists. Raises as `read_weights`."""
    if file.suffix == ".json":
        return _read_shards(file)
    weights = as_float32(_tensors(file))
    check_finite(weights, file)
    return weights


def _tensors(file: Path) -> Weights:
    content, _ = read_tensor_file(file)
    if isinstance(content, dict) and all(isinstance(each, Tensor) for each in content.values()):
        return content
    return state_dict(content, file)


def _read_shards(index: Path) -> Weights:
    places = read_json(index).get("weight_map") if isinstance(read_json(index), dict) else None
    if not isinstance(places, dict) or not places or not all(map(_is_name, places.values())):
        raise UserError(f"{index} is not an index of weights beside it: restore it.")
    weights: Weights = {}
    for name in sorted({*places.values()}):
        file = index.parent / name
        if not file.is_file():
            raise UserError(f"{file} is missing, which {index.name} lists: download it, too.")
        found = as_float32(_tensors(file))
        check_finite(found, file)
        if lost := [key for key, place in places.items() if place == name and key not in found]:
            raise UserError(f"{file} lacks {few(lost)}, which {index.name} lists: download it again.")
        weights |= found
    return weights


def _is_name(place: object) -> bool:
    """Tell whether an index names a file beside itself, and none elsewhere."""
    return isinstance(place, str) and Path(place).name == place and place not in ("", ".", "..")
