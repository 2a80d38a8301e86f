"""Finds a network's state dict in a file: under a prefix of its names, in a group of a checkpoint, or both.

A prefix is what a wrapper adds (``module.``, ``_orig_mod.``, ``net.``), a group is what a training loop saves
beside its optimizer (``ema``, ``state_dict``, ``model``). Names that every such network has show where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cm_ray.errors import UserError, tell_once
from cm_ray.networks.weight_names import few, whose
from cm_ray.storage.tensor_files import tensors_in

Weights = dict[str, Tensor]
Landmark = tuple[str, str]
"""Two names that a network has; the first identifies it, the second confirms it."""
LANDMARKS: tuple[Landmark, ...] = (
    ("time_embed.0.weight", "input_blocks.0.0.weight"),
    ("map_layer0.weight", "map_layer1.weight"),
    ("time_embedding.linear_1.weight", "conv_in.weight"),
    ("emb_fourier.freqs", "emb_noise.weight"),
)
"""Landmarks of the U-Nets of OpenAI (which are also ours), of EDM, of diffusers, and of EDM2."""
_DEEPEST, _MOST_GROUPS, _MOST_SHOWN = 4, 10_000, 6
_AVERAGED = {"ema", "avg", "average", "averaged", "averages", "shadow", "swa", "polyak"}
_OTHERS = {"teacher", "target", "discriminator", "optimizer"}
"""Words in places of weights that are taken last."""
_BUFFERS = re.compile(r".*(resample_filter|freqs|frequencies|num_batches_tracked|running_mean|running_var)")
"""Names of tensors that are no parameters, and that lists of averaged parameters therefore leave out."""


@dataclass(frozen=True, slots=True)
class StateDict:
    """The weights of one network in a file."""

    place: str
    """The groups and the prefix of the weights, joined by dots; empty for the whole file."""
    weights: Weights
    """Tensors by their names without the prefix."""

    @property
    def rank(self) -> int:
        """0 for averaged weights, 1 for weights, 2 for those of a teacher, a target or the like."""
        words = {*re.split(r"[^a-z]+", self.place.lower())}
        return 2 if words & _OTHERS else 0 if words & _AVERAGED else 1


def state_dict(
    content: Any, file: Path, part: str = "", landmarks: Sequence[Landmark] = LANDMARKS
) -> Weights:
    """Return the state dict of a network in the content of a file, and say what was taken.

    part: the place of the one to take; empty for averaged weights, or else the only ones. landmarks: names of
    the networks to look for. Raises UserError when there is none, or when several are equally good.
    """
    found = _state_dicts(content, landmarks)
    if not found:
        raise UserError(_nothing(content, file))
    places = [each.place for each in found]
    if part:
        if part not in places:
            known = ", ".join(map(repr, filter(None, places))) or "none"
            raise UserError(f"{file} has no part {part!r}: its parts are {known}.")
        return found[places.index(part)].weights
    best = [each for each in found if each.rank == min(each.rank for each in found)]
    if len(best) > 1 and not all(_equal(best[0], each) for each in best[1:]):
        raise UserError(
            f"{file} holds several state dicts ({few(repr(each.place) for each in best)}): name one by its "
            f"place, as in {file}#{best[-1].place}."
        )
    _tell(file, best[0], [place for place in places if place != best[0].place], content)
    return best[0].weights


def _tell(file: Path, taken: StateDict, others: list[str], content: Any) -> None:
    edms = taken.place == "model" and "map_layer0.weight" in taken.weights  # as EDM's code saves it
    if not taken.place or (edms and not others):
        return
    averaged = ", the averaged weights" if taken.rank == 0 else ""
    sentence = f"{file}: took {taken.place}{averaged} ({len(taken.weights)} tensors)"
    if others:
        named = few(f"{file.name}#{place}" if place else "those without a prefix" for place in others)
        sentence += f"; to take others: {named}"
    elif taken.rank and (lists := [place for place, _ in _lists(content)]):
        sentence += (
            f"; {lists[0]} is a list of averaged parameters that does not fit its names, and is left out"
        )
    tell_once(sentence + ".")


def _state_dicts(content: Any, landmarks: Sequence[Landmark]) -> list[StateDict]:
    """Return all state dicts that have the names of a landmark, at most one for each place."""
    found: list[StateDict] = []
    for path, group in _groups(content):
        here = [StateDict(_place(path, prefix), weights) for prefix, weights in _by_prefix(group, landmarks)]
        found += [
            *here,
            *(squeezed for raw in here for squeezed in _without_dots(path, group, raw, landmarks)),
        ]
    for place, parameters in _lists(content):
        fitting = [each for each in (_named(parameters, raw) for raw in found if raw.rank == 1) if each]
        if len(fitting) == 1:
            found.append(StateDict(place, fitting[0]))
    return found


def _by_prefix(group: Mapping[str, Any], landmarks: Sequence[Landmark]) -> Iterator[tuple[str, Weights]]:
    """Yield the prefixes under which a group has the names of a landmark, and the tensors below each."""
    names = [name for name, value in group.items() if isinstance(value, Tensor)]
    prefixes = {
        name.removesuffix(first)
        for first, second in landmarks
        for name in names
        if (name == first or name.endswith("." + first)) and name.removesuffix(first) + second in group
    }
    for prefix in sorted(prefixes):
        longer = tuple(other for other in prefixes if len(other) > len(prefix) and other.startswith(prefix))
        yield (
            prefix,
            {
                name.removeprefix(prefix): group[name]
                for name in names
                if name.startswith(prefix) and not (longer and name.startswith(longer))
            },
        )


def _without_dots(
    path: Sequence[str], group: Mapping[str, Any], raw: StateDict, landmarks: Sequence[Landmark]
) -> Iterator[StateDict]:
    """Yield averaged parameters whose names are those of the raw weights without dots, as LitEma's are."""
    names = [name for name in raw.weights if not _BUFFERS.fullmatch(name)]
    for first in (first for first, _ in landmarks if first in raw.weights):
        end = first.replace(".", "")
        for prefix in [name.removesuffix(end) for name in group if name.endswith(end)]:
            theirs = {name: group.get(prefix + name.replace(".", "")) for name in names}
            tensors = {name: each for name, each in theirs.items() if isinstance(each, Tensor)}
            if len(tensors) == len(names):
                yield StateDict(_place(path, prefix), raw.weights | tensors)


def _groups(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every group of the content with its path, outer ones first."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_GROUPS:
        path, value = waiting.pop(0)
        if id(value) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            named = {name: each for name, each in value.items() if isinstance(name, str)}
            yield path, named
            waiting += [
                ((*path, name), each) for name, each in named.items() if isinstance(each, Mapping | list)
            ]
        elif isinstance(value, list) and len(value) <= _MOST_SHOWN:
            waiting += [((*path, str(n)), each) for n, each in enumerate(value) if isinstance(each, Mapping)]


def _lists(content: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield every list of averaged parameters without names, with its place."""
    for path, group in _groups(content):
        for name, value in group.items():
            if not isinstance(value, list | tuple) or not value:
                continue
            if all(isinstance(each, Tensor) for each in value):
                place = _place((*path, name), "")
                if StateDict(place, {}).rank == 0:
                    yield place, list(value)


def _named(parameters: list[Tensor], raw: StateDict) -> Weights | None:
    """Return averaged parameters by the names of the raw weights; None unless their shapes agree one by one.

    Names in alphabetical order are not in the order of the parameters.
    """
    names = [name for name in raw.weights if not _BUFFERS.fullmatch(name)]
    shapes = [raw.weights[name].shape for name in names]
    if shapes != [each.shape for each in parameters] or list(raw.weights) == sorted(raw.weights):
        return None
    return raw.weights | dict(zip(names, parameters, strict=True))


def _place(path: Sequence[str], prefix: str) -> str:
    return ".".join([*path, *filter(None, prefix.split("."))])


def _equal(a: StateDict, b: StateDict) -> bool:
    return a.weights.keys() == b.weights.keys() and all(
        a.weights[name].shape == b.weights[name].shape and torch.equal(a.weights[name], b.weights[name])
        for name in a.weights
    )


def _nothing(content: Any, file: Path) -> str:
    """Return the sentence about a file in which no known network was found."""
    groups = [group for _, group in _groups(content)]
    names = max(
        ([n for n, v in group.items() if isinstance(v, Tensor)] for group in groups), key=len, default=[]
    )
    if not names:
        count = sum(1 for _ in tensors_in(content))
        return (
            f"{file} holds {f'{count} tensors without names' if count else 'no tensors'}: give a state dict."
        )
    if owner := whose(names):
        missing = [name for landmark in LANDMARKS for name in landmark if whose([name]) == owner]
        lacking = [name for name in missing if name not in names]
        return (
            f"{file} has names like those of {owner} U-Nets, but lacks {few(lacking)}: give a complete one."
        )
    return (
        f"{file} has no network that is known here: its tensors are called {few(names)}; "
        "give a U-Net of OpenAI, EDM, EDM2 or diffusers, or a state dict of the network of a run that it is "
        "the teacher of."
    )
