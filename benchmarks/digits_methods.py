"""All methods on the 8x8 digits at one budget: the table of docs/paper_table.md.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/digits_methods.py --out DIR

Every method is trained in this process, without Ray, for the same processor-seconds, and more for the
diffusion models. The number of steps follows from the time of a step, which is measured once and kept in DIR.
A row of results/digits_methods.jsonl for each method, seed and sampler; what has a row is not measured again,
and what has been trained in DIR is not trained again. At the end the table of all rows is written to DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
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

from cm_ray.core.ode import Tolerance
from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.evaluation.likelihood import LikelihoodRequest, likelihoods
from cm_ray.metrics.extractors.digits_classifier import DigitsExtractor
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.comparison import COMPARED, compared_recipe, lines_of, with_starts
from cm_ray.recipes.recipe import Recipe
from cm_ray.reports.comparison import Cell, write_comparison

NAME = "digits_methods"


def recipe_of(args: argparse.Namespace, method: str, seed: int, images: ImageSet) -> Recipe:
    """Return the recipe of a method, with as many steps as its budget allows; all seeds have as many."""
    changes = {"seed": seed, "batch_size": args.batch_size, "tracking.uri": "none", "evaluation.every": 0}
    recipe = compared_recipe(method, "digits", changes, "its start" if COMPARED[method].starts_from else "")
    seconds = args.teacher_seconds if diffuses(recipe) else args.seconds
    start = start_of(folder_of_start(args, method, seed))
    return with_steps(recipe, steps_within(seconds, args.out / "steps.json", method, recipe, images, start))


def diffuses(recipe: Recipe) -> bool:
    """Return True for a diffusion model that is not a distilled one."""
    return recipe.diffusion.denoiser and not recipe.method.halving


def folder_of(args: argparse.Namespace, method: str, seed: int) -> Path:
    """Return the folder of a training."""
    return Path(args.out) / f"seed-{seed}" / method


def folder_of_start(args: argparse.Namespace, method: str, seed: int) -> Path | None:
    """Return the folder of the training that a method starts from; None if it starts from nothing."""
    start = COMPARED[method].starts_from
    return folder_of(args, start, seed) if start else None


def measured(args: argparse.Namespace, method: str, seed: int, images: ImageSet) -> None:
    """Train a method, unless it is, and write the rows that are missing."""
    recipe, folder = recipe_of(args, method, seed, images), folder_of(args, method, seed)
    trained(recipe, images, folder, start_of(folder_of_start(args, method, seed)))
    training = json.loads((folder / "training.json").read_text())
    facts = {"method": method, "seed": seed, "batch_size": args.batch_size, "samples": args.samples}
    facts |= {"steps": recipe.steps}
    done = {(row["label"], row["sampler"]) for row in kept_rows(NAME) if facts.items() <= row.items()}
    for line in lines_of(method, recipe):
        if (line.label, line.sampler) in done:
            continue
        row, _ = sampled_row(folder, line, recipe, images, DigitsExtractor.open(), args.samples)
        write_row(NAME, facts | row | {"training_s": training["seconds"], "revision": revision()})
        print(method, seed, line.label, line.sampler, round(row["score"]["value"], 4), flush=True)
    if diffuses(recipe) and ("bits/dim", "ode") not in done:
        row = bits_of(args, folder, images)
        write_row(NAME, facts | row | {"training_s": training["seconds"], "revision": revision()})
        print(method, seed, "bits/dim", round(row["bits_per_dim"], 4), flush=True)


def bits_of(args: argparse.Namespace, folder: Path, images: ImageSet) -> dict[str, Any]:
    """Return the row of the likelihood of the first images, which are training images."""
    rows, began = slice(args.likelihoods), time.process_time()
    request = LikelihoodRequest(tolerance=Tolerance(rtol=1e-4, atol=1e-4), batch=128)
    places = torch.arange(len(images.images[rows]))
    found = likelihoods(
        load_model(folder / "model"), images.images[rows], images.labels[rows], places, request
    )
    value, error = found.mean
    return {
        "label": "bits/dim",
        "sampler": "ode",
        "bits_per_dim": value,
        "error": error,
        "images": len(places),
        "evaluations": float(found.evaluations.mean()),
        "seconds_per_1000": round(1000 * (time.process_time() - began) / len(places), 3),
        "key": request.key,
    }


def cells_of(rows: list[dict[str, Any]]) -> Iterator[Cell]:
    """Yield the cells of the table."""
    bits = {(row["method"], row["seed"]): row["bits_per_dim"] for row in rows if "bits_per_dim" in row}
    for row in rows:
        if "score" in row:
            yield cell_of(row, bits.get((row["method"], row["seed"])))


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, seed after seed, and write the table."""
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    images = load_images("digits")
    for seed in args.seeds:
        for method in with_starts(args.methods):
            measured(args, method, seed, images)
    write_table(args, images)


def write_table(args: argparse.Namespace, images: ImageSet) -> None:
    """Write table.md, table.csv and table.png of all rows of these settings to the folder."""
    steps = json.loads((args.out / "steps.json").read_text())
    fits = {"batch_size": args.batch_size, "samples": args.samples}
    rows = [row for row in kept_rows(NAME) if fits.items() <= row.items()]
    rows = [row for row in rows if steps.get(row["method"]) == row["steps"]]
    order = list(COMPARED)
    rows.sort(key=lambda row: (order.index(row["method"]), row["seed"]))
    note = (
        f"{images.count} images of digits, {args.samples} samples a row, batches of {args.batch_size}; "
        f"{args.seconds:g} processor-seconds for each training, {args.teacher_seconds:g} for each diffusion "
        "model, on one thread. Seconds are the processor's."
    )
    write_comparison(list(cells_of(rows)), args.out / "table", title="All methods on digits", note=note)
    print(args.out / "table.md")


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the models and the table")
    parser.add_argument("--methods", nargs="+", choices=list(COMPARED), default=list(COMPARED))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60.0, help="processor-seconds of a training")
    parser.add_argument("--teacher-seconds", type=float, default=90.0, help="those of a diffusion model")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--likelihoods", type=int, default=64, help="images whose likelihood is computed")
    return parser


if __name__ == "__main__":
    run(options_parser().parse_args())
