"""Estimate the memory of a training.   python jobs/memory.py ct_imagenet64 --gib 40

PRESETS: names of presets; none: one of each network. The step is counted on tensors without storage, so any
machine can ask for any other: what a worker holds (weights, averages, optimizer), what each image of its
micro-batch adds, with and without --network.gradient-checkpointing, and the --accumulate that fits.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from cm_ray.command_line import run_job
from cm_ray.config import TrainConfig, override
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.presets import preset
from cm_ray.training.memory import TrainingMemory, most_rows, of_one_image, parts_for, training_memory

NETWORKS = ("ct_digits", "ct_cifar10", "ct_imagenet64", "cd_imagenet64", "ct_lsun256", "cd_lsun256")
SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "imagenet64": (3, 64, 64), "lsun256": (3, 256, 256)}
CLASSES = {"digits": 10, "cifar10": 10, "imagenet64": 1000, "lsun256": 1}
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Which trainings, and what there is."""

    presets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PRESETS")] = NETWORKS
    """Names of presets."""
    gib: float = 80.0
    """Memory of a worker's device in GiB, of which a tenth is left to PyTorch, libraries and gaps."""
    num_workers: int = 8
    """Workers; each takes its share of the batch."""
    precision: Literal["float32", "bfloat16", "float16", ""] = ""
    """Precision of the networks; empty: the preset's."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Autocast keeps more in float32 on GPUs."""


def memory(args: Memory) -> None:
    """Print a table, a row for each preset with and without recomputed activations."""
    if args.gib <= 0 or args.num_workers < 1:
        raise UserError("--gib must be positive and --num-workers at least 1.")
    print("| preset | recomputing | parameters | held | of one image | images at a time | --accumulate |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in args.presets:
        for recompute in (False, True):
            print(row(name, recompute, args), flush=True)


def row(name: str, recompute: bool, args: Memory) -> str:
    """Return a row of the table."""
    config = configured(name, recompute, args)
    data = name.rpartition("_")[2]
    names = tuple(map(str, range(CLASSES[data])))
    spec = ModelSpec(
        network=config.network, diffusion=config.diffusion, shape=SHAPES[data], class_names=names
    )
    one = training_memory(config, spec, 1, args.device)
    share = config.batch_size // args.num_workers
    rows = min(share, most_rows(config, spec, 0.9 * GIB * args.gib, args.device))
    parts = str(parts_for(config, rows)) if rows else "does not fit"
    return (
        f"| `{name}` | {'yes' if recompute else 'no'} | {one.parameters / 1e6:.2f} M | {_gib(held(one))} "
        f"| {_gib(of_one_image(config, spec, args.device))} | {rows} | {parts} |"
    )


def configured(name: str, recompute: bool, args: Memory) -> TrainConfig:
    """Return the preset's settings on these workers; gradients of earlier parts are there, too."""
    config = preset(name)
    if config.batch_size % args.num_workers:
        raise UserError(f"--num-workers {args.num_workers} do not share the batch of {name} evenly.")
    changes: dict[str, Any] = {"network.gradient_checkpointing": recompute, "accumulate": 2}
    if args.precision:
        changes["precision"] = args.precision
    cluster = replace(config.cluster, num_workers=args.num_workers)
    return replace(override(config, changes), cluster=cluster)


def held(memory: TrainingMemory) -> int:
    """Return what is there whatever the images: state, gradients, the optimizer's copies."""
    return memory.state + memory.optimizing


def _gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"


if __name__ == "__main__":
    run_job(Memory, memory, __doc__ or "")
