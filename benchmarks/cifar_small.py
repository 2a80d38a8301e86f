"""All methods on small CIFAR-10 images in colour at one budget, scored against images that are held out.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/cifar_small.py --data DIR --weights FILE --out DIR

data: a folder with train/ and test/, each with Parquet files of images. weights: those of cifar-resnet56. All
methods have one network, one column (trigflow), the same batches and --minutes of this process's processor
time; the diffusion model, which others start from, has --teacher-minutes. Samples are compared with the test
images by the Fréchet distance of features of cifar-resnet56, images enlarged to 32x32; training images are
compared with them, too, as the floor. A row of results/cifar_small.jsonl for each sampler; grids of samples,
models and the table lie in --out. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from in_process import (
    cell_of,
    kept_rows,
    revision,
    sampled_row,
    start_of,
    steps_within,
    trained,
    with_steps,
)
from machine import write_row
from torch import Tensor

from cm_ray.core.averages import ConstantEMA
from cm_ray.core.precondition import TrigFlow
from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.drawing.pictures import save_grid
from cm_ray.drawing.requests import sample_all
from cm_ray.metrics.extractors.cifar_resnet import CifarResNetExtractor
from cm_ray.metrics.extractors.extractor import Extractor, statistics_of
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.networks.architectures import ADM
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import from_uint8
from cm_ray.recipes.comparison import COMPARED, compared_recipe, lines_of
from cm_ray.recipes.recipe import Recipe
from cm_ray.reports.comparison import write_comparison

NAME = "cifar_small"
STARTS = {
    "edm": "",
    "cd": "edm",
    "ict": "",
    "ect": "edm",
    "tcm": "ect",
    "sct": "",
    "scd": "edm",
    "meanflow": "",
}
"""Methods in the order of their training, and what each starts from; TCM from ECT, as published."""
LEVELS = {8: (1, 2), 16: (1, 2, 2), 32: (1, 2, 2, 2)}
"""Multiples of the channels at each level of the network, by the size of the images."""
_HALVED = 0.05
"""Share of a training in whose last steps half of the average's weight lies."""


@dataclass(frozen=True, slots=True)
class Enlarged:
    """An extractor for images of 32x32 that takes smaller ones and enlarges them."""

    extractor: Extractor
    size: int

    @property
    def name(self) -> str:
        """That of the extractor; the enlargement is in `preprocess`."""
        return self.extractor.name

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.extractor.dim

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the extractor's weights."""
        return self.extractor.weights_sha256

    @property
    def preprocess(self) -> str:
        """The enlargement, and what the extractor does then."""
        return f"{self.size}x{self.size} bicubic to 32x32, {self.extractor.preprocess}"

    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, dim) of uint8 images (b, 3, size, size)."""
        large = F.interpolate(images.float(), size=(32, 32), mode="bicubic", align_corners=False)
        return self.extractor.features(large.round().clamp(0, 255).to(torch.uint8))


def open_features(weights: str) -> Extractor:
    """Return cifar-resnet56 with the weights of a file."""
    return CifarResNetExtractor.open(56, weights=weights)


def recipe_of(args: argparse.Namespace, method: str, images: ImageSet) -> Recipe:
    """Return the recipe of a method: that of digits, with one network, column and average for all."""
    changes: dict[str, Any] = {"seed": args.seed, "batch_size": args.batch_size, "tracking.uri": "none"}
    changes |= {"evaluation.every": 0, "data.path": "", "augmentation": "flip"}
    recipe = compared_recipe(method, "digits", changes, "its start" if STARTS[method] else "")
    network = ADM(
        channels=args.channels,
        channel_mult=LEVELS[args.size],
        blocks=1,
        attention_resolutions=(args.size // 2 ** (len(LEVELS[args.size]) - 1),),
        head_channels=32,
        norm_groups=8,
        conditional=True,
    )
    deviation = round(float(from_uint8(images.images).std()), 3)
    recipe = replace(recipe, network=network, column=TrigFlow(sigma_data=deviation))
    minutes = args.teacher_minutes if method == "edm" else args.minutes
    start = start_of(args.out / STARTS[method]) if STARTS[method] else None
    steps = steps_within(60 * minutes, args.out / "steps.json", method, recipe, images, start)
    decay = 0.5 ** (1 / max(1.0, _HALVED * steps))
    return with_steps(replace(recipe, averages=ConstantEMA(decays=(decay,))), steps)


def measured(args: argparse.Namespace, method: str, train: ImageSet, test: ImageSet) -> None:
    """Train a method, unless it is, and write the rows that are missing."""
    recipe, folder = recipe_of(args, method, train), args.out / method
    trained(recipe, train, folder, start_of(args.out / STARTS[method]) if STARTS[method] else None)
    training = json.loads((folder / "training.json").read_text())
    facts = facts_of(args) | {"method": method, "steps": recipe.steps}
    done = {row["sampler"] for row in kept_rows(NAME) if facts.items() <= row.items()}
    extractor = Enlarged(open_features(args.weights), args.size)
    for line in lines_of(method, recipe):
        if line.sampler in done or not wanted(line.sampler, args.evaluations):
            continue
        row, request = sampled_row(folder, line, recipe, test, extractor, args.samples)
        shown, _ = sample_all(load_model(folder / "model"), replace(request, count=64))
        save_grid(shown, args.out / f"{method}-{int(row['evaluations'])}.png")
        more = {"training_s": training["seconds"], "revision": revision()}
        write_row(NAME, facts | row | more)
        print(method, line.sampler, round(row["score"]["value"], 3), flush=True)


def facts_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings by which rows of one table are known."""
    names = ("size", "minutes", "teacher_minutes", "seed", "batch_size", "channels", "samples")
    return {name: getattr(args, name) for name in names}


def wanted(sampler: str, evaluations: Sequence[int]) -> bool:
    """Return True for the sampler of many evaluations, and for those of few that are asked for."""
    if sampler == "own":
        return True
    name, _, points = sampler.partition("@")
    count = len(points.split(",")) + 1 if points else int(name.partition(":")[2] or 1)
    return count in evaluations


def floor_of(args: argparse.Namespace, train: ImageSet, test: ImageSet) -> float:
    """Return the distance of as many training images as there are samples to the test images."""
    extractor = Enlarged(open_features(args.weights), args.size)
    found = [statistics_of(extractor, images) for images in (train.images[: args.samples], test.images)]
    return frechet_distance(*found)


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, and write the table."""
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train, test = (load_images(args.data / split, size=args.size) for split in ("train", "test"))
    needed = {start for method in args.methods if (start := STARTS[method])}
    needed |= {STARTS[start] for start in needed if STARTS[start]}
    for method in STARTS:
        if method in needed | {*args.methods}:
            measured(args, method, train, test)
    write_table(args, train, test)


def write_table(args: argparse.Namespace, train: ImageSet, test: ImageSet) -> None:
    """Write table.md, table.csv and table.png of all rows of these settings to the folder."""
    facts = facts_of(args)
    rows = [row for row in kept_rows(NAME) if facts.items() <= row.items()]
    rows.sort(key=lambda row: list(STARTS).index(row["method"]))
    note = (
        f"{train.count:,} training images of {args.size}x{args.size}, in colour and with classes; "
        f"{args.samples:,} samples a row against {test.count:,} test images. The floor, as many training "
        f"images against the test images, is {floor_of(args, train, test):.3f}; clipped Gaussian noise has "
        f"{rows[0]['noise']:.1f}. {args.minutes:g} minutes of one processor for each training, "
        f"{args.teacher_minutes:g} for the diffusion model that "
        f"{', '.join(COMPARED[method].label for method, start in STARTS.items() if start == 'edm')} start "
        "from; TCM starts from ECT's."
    )
    cells = [cell_of(row) for row in rows]
    write_comparison(
        cells, args.out / "table", title=f"Methods on CIFAR-10 at {args.size}x{args.size}", note=note
    )
    print((args.out / "table.md").read_text())


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--weights", required=True, help="file of the weights of cifar-resnet56")
    parser.add_argument("--out", type=Path, required=True, help="folder of models, grids and the table")
    parser.add_argument("--size", type=int, choices=tuple(LEVELS), default=8, help="pixels per side")
    parser.add_argument("--minutes", type=float, default=25.0, help="processor time of a training")
    parser.add_argument("--teacher-minutes", type=float, default=45.0, help="that of the diffusion model")
    parser.add_argument("--methods", nargs="+", choices=tuple(STARTS), default=list(STARTS))
    parser.add_argument("--evaluations", nargs="+", type=int, choices=(1, 2, 4, 8), default=[1, 2, 4, 8])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=32, help="channels at full resolution")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    run(options_parser().parse_args())
