"""Compare averages that are made of snapshots with averages that were tracked directly.

Trains ict_digits with power-function averages, tracks further lengths beside them, and makes these lengths of
snapshots in float32 and in float16. A row of benchmarks/results/averages.jsonl for each length.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from machine import write_row
from torch import Tensor

from cm_ray import recipes
from cm_ray.command_line.options import run_job
from cm_ray.core.averages import PowerEMA
from cm_ray.core.ema import update_average
from cm_ray.core.power_function import Profile, reconstruction
from cm_ray.data.load_images import load_images
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine
from cm_ray.training.specification import model_spec


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Settings of the benchmark."""

    lengths: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04, 0.07, 0.14, 0.2, 0.25, 0.28)
    """Lengths that are tracked directly and made of snapshots."""
    snapshots: tuple[int, ...] = (8, 16, 32)
    """Numbers of snapshots."""
    threads: int = 0
    """PyTorch's threads; 0: as many as there are cores."""


class Tracked:
    """Averages that are tracked over the weights of an engine."""

    def __init__(self, engine: Engine, lengths: tuple[float, ...]) -> None:
        self.engine, self.kind = engine, PowerEMA(lengths=lengths)
        self.averages = [[p.detach().clone() for p in engine.student.network.parameters()] for _ in lengths]

    def update(self) -> None:
        """Take the last step into all averages."""
        current = [p.detach() for p in self.engine.student.network.parameters()]
        decays = self.kind.decays_at(self.engine.step - 1)
        for average, decay in zip(self.averages, decays, strict=True):
            update_average(average, current, decay)

    def vectors(self) -> dict[float, Tensor]:
        """Return all weights of each average in one vector, by its length."""
        return {
            length: torch.cat([tensor.flatten() for tensor in average])
            for length, average in zip(self.kind.lengths, self.averages, strict=True)
        }


def trained(args: Averages) -> tuple[dict[Profile, Tensor], dict[float, Tensor], int]:
    """Train; return the snapshots by their profiles, the averages tracked directly, and the steps."""
    recipe = override(recipes.ict_digits(), {"averages": "power"})
    images = load_images("digits")
    engine = Engine(recipe, model_spec(recipe, images))
    kept, direct = Tracked(engine, PowerEMA().lengths), Tracked(engine, args.lengths)
    kinds = [dataclasses.replace(PowerEMA(), snapshots=count) for count in args.snapshots]
    due = {step for kind in kinds for step in kind.snapshot_steps(0, recipe.steps)}
    snapshots = {}
    batches = images.batches(seed=recipe.seed, batch_size=recipe.batch_size, start_step=0)
    for stats in engine.train(Batch(*batch) for batch in batches):
        kept.update()
        direct.update()
        if stats.step in due:
            snapshots |= {Profile(stats.step, length): v.clone() for length, v in kept.vectors().items()}
    return snapshots, direct.vectors(), recipe.steps


def half(vector: Tensor) -> Tensor:
    """Return a vector as float16 keeps it."""
    return vector.half().float()


def rows(args: Averages) -> list[dict[str, Any]]:
    """Return the errors of every length for every number of snapshots."""
    snapshots, direct, steps = trained(args)
    made = []
    for count in args.snapshots:
        at = dataclasses.replace(PowerEMA(), snapshots=count).snapshot_steps(0, steps)
        used = {profile: vector for profile, vector in snapshots.items() if profile.steps in at}
        for length, tracked in direct.items():
            plan = reconstruction(list(used), Profile(steps, length))
            norm = float(tracked.double().norm())
            nearest = min(float((vector - tracked).norm()) for vector in used.values())
            row: dict[str, Any] = {"snapshots": count, "length": length, "profile": round(plan.error, 5)}
            for name, form in (("float32", Tensor.float), ("float16", half)):
                parts = zip(plan.coefficients, used.values(), strict=True)
                total = sum(c * form(vector).double() for c, vector in parts)
                row[name] = float(f"{float((total - tracked).norm()) / norm:.3g}")
            made.append(row | {"nearest_snapshot": float(f"{nearest / norm:.3g}")})
    return made


def measure(args: Averages) -> None:
    """Print and keep a row for every length."""
    if args.threads:
        torch.set_num_threads(args.threads)
    for row in rows(args):
        print(row)
        path = write_row("averages", row | {"steps": 900})
    print(f"written to {path}")


if __name__ == "__main__":
    run_job(Averages, measure, __doc__ or "")
