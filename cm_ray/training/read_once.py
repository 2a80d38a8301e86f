"""Files that one worker reads for all: the starting models and the checkpoint of a training.

With a read on each of many workers, every start would read as many times the size of these files, from one
shared disk or object store.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import read_model
from cm_ray.networks.model import Model, build_model
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.runs.checkpoint import Checkpoint, CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.training.communication import Communication
from cm_ray.training.starting_models import read_initial

PIECE_BYTES = 64 << 20
"""Bytes that are sent at once: the memory that a worker needs beside the tensors."""


class Content(NamedTuple):
    """The files' content that a worker needs."""

    facts: Any
    """All that is not a tensor, as values that can be pickled."""
    tensors: Mapping[str, Tensor]
    """Tensors on the CPU by name."""


def read_once(
    read: Callable[[], Content],
    communication: Communication,
    needed: Callable[[str], bool] = lambda name: True,
) -> Content:
    """Return, on every worker, what `read` returns on rank 0, to the bit; all workers call it.

    needed: tells by its name whether the other workers get a tensor. `read` is not called on them. The error
    of rank 0 is raised on all workers: a UserError as the same sentence, another one as RuntimeError.
    """
    if communication.world == 1:
        return read()
    if communication.rank > 0:
        return _received(communication)
    try:
        content = read()
    except Exception as error:
        _send_value(_portable(error), communication)
        raise
    sent = {name: tensor.contiguous() for name, tensor in content.tensors.items() if needed(name)}
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()}
    _send_value((content.facts, shapes), communication)
    for piece in _pieces(sent):
        communication.fill(torch.cat(piece))
    return content


def read_starting_models(
    config: Recipe, run: RunDirectory, communication: Communication
) -> tuple[Model | None, Mapping[str, Tensor] | None]:
    """Return the teacher and the initial weights of a prepared run, which rank 0 alone reads.

    The run has checked that they are finite. Initial weights that are the teacher's are not read a second
    time. Raises UserError, on all workers, when a file is missing or damaged.
    """
    teacher, weights = None, None
    if config.method.needs_teacher:
        spec, weights = read_once(lambda: Content(*read_model(run.teacher, check=False)), communication)
        teacher = build_model(spec, dict(weights), run.teacher)
    if config.init_from.model == TEACHER and weights is not None:
        return teacher, weights
    if not config.init_from.model:
        return teacher, None
    return teacher, read_once(lambda: Content(None, read_initial(config, run) or {}), communication).tensors


def read_checkpoint(
    store: CheckpointStore, step: int, run: RunDirectory, communication: Communication
) -> Checkpoint:
    """Return the checkpoint of a step, which rank 0 alone reads; the other workers get what they need of it.

    Raises UserError on all workers when it is damaged.
    """

    def read() -> Content:
        run.fetch(store.state_file(step))
        found = store.load(step)
        return Content((found.step, found.extra, found.source), found.tensors)

    (number, extra, source), tensors = read_once(read, communication, needed_by_all)
    return Checkpoint(number, dict(tensors), extra, source)


def needed_by_all(name: str) -> bool:
    """Return True for a tensor of a checkpoint that all workers need: averages but the first are rank 0's."""
    group = name.partition("/")[0]
    return not group.startswith("ema") or group == "ema0"


def _received(communication: Communication) -> Content:
    """Return what rank 0 sends, or raise its error."""
    value = _received_value(communication)
    if isinstance(value, Exception):
        raise value
    facts, shapes = value
    tensors = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in shapes.items()}
    for piece in _pieces(tensors):
        buffer = torch.empty(sum(len(part) for part in piece), dtype=torch.uint8)
        communication.fill(buffer)
        for part, sent in zip(piece, buffer.split([len(part) for part in piece]), strict=True):
            part.copy_(sent)
    return Content(facts, tensors)


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[list[Tensor]]:
    """Yield the bytes of contiguous tensors, as views, in groups of PIECE_BYTES in all."""
    piece: list[Tensor] = []
    room = PIECE_BYTES
    for tensor in tensors.values():
        rest = tensor.reshape(-1).view(torch.uint8)
        while len(rest):
            piece.append(rest[:room])
            rest, room = rest[room:], room - len(piece[-1])
            if not room:
                yield piece
                piece, room = [], PIECE_BYTES
    if piece:
        yield piece


def _portable(error: Exception) -> Exception:
    """Return an error that another process can raise."""
    if isinstance(error, UserError):
        return UserError(error.marked)
    return RuntimeError(f"rank 0 could not read what all workers need: {error!r}")


def _send_value(value: Any, communication: Communication) -> None:
    """Send a value from rank 0: its length, then its bytes."""
    packed = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    communication.fill(torch.tensor([len(packed)]))
    communication.fill(packed)


def _received_value(communication: Communication) -> Any:
    """Return the value that rank 0, a process of the same training, sends."""
    length = torch.zeros(1, dtype=torch.int64)
    communication.fill(length)
    packed = torch.empty(int(length), dtype=torch.uint8)
    communication.fill(packed)
    return pickle.loads(packed.numpy().tobytes())
