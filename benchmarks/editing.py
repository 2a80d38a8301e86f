"""Benchmark of the quality of zero-shot edits of digits, compared with methods without a model.

    python benchmarks/editing.py --model runs/demo

All 1,797 digits (which the model was trained on) are edited with their true classes, and with classes drawn
at random, as an edit without --label has them. FD is the Fréchet distance of the results to the real digits,
l2 the mean distance to the true ones, pixels from -1 to 1. Writes a row and pictures to benchmarks/results.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from machine import RESULTS, write_row
from torch import Tensor

from cm_ray.command_line.options import run_job
from cm_ray.core.noise import Purpose, normal
from cm_ray.drawing.pictures import save_grid
from cm_ray.editing.model_edits import edited, interpolation_steps, shown_before
from cm_ray.editing.replacement import inpainting, super_resolution
from cm_ray.editing.tasks import Edit, plan_edit
from cm_ray.metrics.extractors.digits_classifier import load_digits_images
from cm_ray.metrics.extractors.extractor import statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import from_uint8, to_uint8
from cm_ray.tracking.locate import locate_model

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 80.0)
COLUMNS = 10


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Settings of the benchmark."""

    model: str
    """A model of digits: its run directory."""
    nfe: int = 0
    """Evaluations of inpainting and super-resolution; 0: 39, of a diffusion model 200."""
    sampler: str = ""
    """The sampler by which a diffusion model inpaints and enlarges, instead of --nfe."""
    batch_size: int = 599
    """Images per network evaluation."""


class Digits:
    """The digits, and how far images are from them."""

    def __init__(self, settings: Benchmark) -> None:
        self.model, self.batch = load_model(locate_model(settings.model)), settings.batch_size
        images, self.labels = load_digits_images()
        self.true, self.extractor = from_uint8(images), open_extractor("digits")
        self.statistics = statistics_of(self.extractor, images)
        self.mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        self.mask[..., :4] = True

    def plan(self, task: str, **settings: object) -> Edit:
        """Return a task for this model."""
        return plan_edit(task, self.model.spec.diffusion, self.model.spec.shape, **settings)

    def edited(self, edit: Edit, images: Tensor, labels: Tensor | None) -> Tensor:
        """Edit images, a batch at a time."""
        parts = []
        for part in torch.arange(len(images)).split(self.batch):
            mask = self.mask.expand(len(part), -1, -1, -1)
            of_part = None if labels is None else labels[part]
            parts.append(
                edited(self.model, edit, images[part], indices=part, seed=0, mask=mask, labels=of_part)
            )
        return torch.cat(parts)

    def scores(self, images: Tensor) -> dict[str, float]:
        """Return FD and l2."""
        distance = frechet_distance(statistics_of(self.extractor, to_uint8(images)), self.statistics)
        return {"FD": distance, "l2": self.l2(images)}

    def l2(self, images: Tensor) -> float:
        """Return the mean distance to the true digits."""
        return (images - self.true).flatten(1).norm(dim=1).mean().item()


def measured(digits: Digits, settings: Benchmark) -> dict[str, dict[str, float]]:
    """Return the scores of edits and of doing without."""
    asked = {"steps": settings.nfe, "sampler": settings.sampler}
    y, labels, mask = digits.true, digits.labels, digits.mask
    free = digits.model.sample(torch.arange(len(y)), seed=0, sampler=digits.model.spec.sampler, labels=labels)
    found = {
        "samples of the same classes": digits.scores(free),
        "right half: the mean digit": digits.scores(torch.where(mask, y, y.mean(0))),
        "right half: the mean of the left": digits.scores(
            torch.where(mask, y, y[..., :4].mean((1, 2, 3), keepdim=True))
        ),
        "x2: nearest": digits.scores(super_resolution(y, 2).alone()),
    }
    for name, task in (("right half", "inpaint"), ("x2", "upscale")):
        started = time.perf_counter()
        found[f"{name}: {task}"] = digits.scores(digits.edited(digits.plan(task, **asked), y, labels))
        found[f"{name}: {task}"]["seconds"] = time.perf_counter() - started
        drawn = digits.edited(digits.plan(task, **asked), y, None)
        found[f"{name}: {task}, classes drawn"] = digits.scores(drawn)
    return found


def denoised(digits: Digits) -> dict[float, tuple[float, float]]:
    """Return, for every level, the l2 of the noisy digits and of the denoised ones."""
    noise, found = normal(0, 0, torch.arange(len(digits.true)), Purpose.NOISE, (1, 8, 8)), {}
    for sigma in LEVELS:
        noisy = digits.true + sigma * noise
        clean = digits.edited(digits.plan("denoise", sigma=sigma), noisy, digits.labels)
        found[sigma] = digits.l2(noisy), digits.l2(clean)
    return found


def draw(digits: Digits) -> None:
    """Write a picture per task: what it is told, one or two results, the true digits.

    Those of the documents are of a consistency model, which does all tasks.
    """
    first = [int((digits.labels == label).nonzero()[3]) for label in range(COLUMNS)]
    y, labels, indices = digits.true[first], digits.labels[first], torch.arange(COLUMNS)
    noisy = y + 0.5 * normal(0, 0, indices, Purpose.NOISE, (1, 8, 8))
    painted = (super_resolution(y, 2).alone() * 1.5).round().clamp(-1, 1)
    mask = inpainting(y, digits.mask).mask.expand_as(y)
    for task, images, settings in (
        ("inpaint", y, {}),
        ("upscale", y, {}),
        ("stroke", painted, {"taus": (1.0, 0.5)}),
        ("denoise", noisy, {"sigma": 0.5}),
    ):
        edit = digits.plan(task, **settings)
        rows = [shown_before(edit, images, mask)]
        for seed in range(1 if task == "denoise" else 2):
            rows.append(
                edited(digits.model, edit, images, indices=indices, seed=seed, mask=mask, labels=labels)
            )
        rows += [] if task == "stroke" else [y]
        save_grid(to_uint8(torch.cat(rows)), RESULTS / f"edit-{task}.png", columns=COLUMNS)
    ways = torch.tensor([3, 7, 8]).repeat_interleave(COLUMNS)
    alpha = torch.linspace(0, 1, COLUMNS).repeat(3)
    sampler = digits.model.spec.sampler
    *_, last = interpolation_steps(digits.model, sampler, alpha, indices=ways, seeds=(0, 1), labels=ways)
    save_grid(to_uint8(last.x), RESULTS / "edit-interpolate.png", columns=COLUMNS)


def run(settings: Benchmark) -> None:
    """Measure, print and keep."""
    digits = Digits(settings)
    scores = measured(digits, settings)
    for name, row in scores.items():
        print(f"{name:36} FD {row['FD']:7.3f}   l2 {row['l2']:.3f}", flush=True)
    levels = denoised(digits)
    for sigma, (before, after) in levels.items():
        print(f"denoise at {sigma:<5g} l2 {before:8.3f} to {after:.3f}")
    if not digits.model.spec.diffusion.denoiser:
        draw(digits)
    row = {"scores": scores, "denoise": {f"{sigma:g}": pair for sigma, pair in levels.items()}}
    nfe = digits.plan("inpaint", steps=settings.nfe, sampler=settings.sampler).nfe
    print(write_row("editing", {"steps": nfe, "sampler": settings.sampler, **row}))


if __name__ == "__main__":
    run_job(Benchmark, run, __doc__ or "")
