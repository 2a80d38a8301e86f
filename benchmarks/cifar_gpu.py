"""CIFAR-10 in half an hour on one GPU: an EDM teacher, consistency tuning or distillation of it, a score.

    PYTHONPATH=. python benchmarks/cifar_gpu.py --data DIR --weights FILE --out DIR --minutes 9
    PYTHONPATH=. python benchmarks/cifar_gpu.py --data DIR --weights FILE --out DIR --method cd

data: a folder with train/ and test/, each with Parquet files of images. weights: those of cifar-resnet56. It
needs PyTorch, NumPy, Pillow, safetensors and PyArrow alone. After --minutes, training or scoring, it ends
with status 3 and leaves in --out what the same command needs to go on, with the weights of an uninterrupted
run (on CPUs bit for bit): one checkpoint of the stage that it is in, of a finished stage its averaged weights
alone, and sums of features. It prints their size. At the end the samples are scored against the test images
by the Fréchet distance of features of cifar-resnet56, which is no FID; result.json and grids of samples lie
in --out, and a row in results/cifar_gpu.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write_row
from timing import synchronised
from torch import Tensor

from cm_ray import recipes
from cm_ray.core.averages import ConstantEMA
from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.drawing.pictures import save_grid
from cm_ray.metrics.extractors.cifar_resnet import CifarResNetExtractor
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, save_model, to_uint8
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.sampling.samplers import Heun, Multistep, OneStep, Sampler
from cm_ray.settings.tree import override
from cm_ray.storage.files import remove, write_json, written_aside
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine
from cm_ray.training.specification import model_spec

STOPPED = 3
"""Exit status of a run that ended with its minutes."""
LOOK = 20
"""Steps between two looks at the clock, at which the GPU is waited for."""


def recipe_of(args: argparse.Namespace, stage: str) -> Recipe:
    """Return the settings of the teacher or of the student."""
    changes: dict[str, Any] = {
        "batch_size": args.batch_size,
        "precision": args.precision,
        "compile": args.compile,
        "network": "ddpm++",
        "network.channels": args.channels,
        "network.dropout": 0.0,
        "averages": ConstantEMA(decays=(0.999,)),
    }
    if stage == "teacher":
        warmup = min(500, args.teacher_steps // 4)
        own = {"steps": args.teacher_steps, "optimizer.warmup_steps": warmup}
        return override(recipes.edm_cifar10(), changes | own)
    changes |= {"steps": args.student_steps, "init_from.model": ""}
    if args.method == "ect":
        return override(recipes.ect_cifar10(), changes)
    return override(recipes.cd_cifar10(), changes | {"teacher.model": "given", "distance": "l2"})


def train(engine: Engine, images: ImageSet, folder: Path, ends: float, log: Path) -> bool:
    """Train from the last checkpoint in the folder to the last step; return False if the time is over."""
    config, store = engine.config, CheckpointStore(folder, keep=1)
    if steps := store.steps():
        engine.restore(store.load(steps[-1]))
    batches = images.batches(seed=config.seed, batch_size=config.batch_size, start_step=engine.step)
    started, first = time.monotonic(), engine.step
    try:
        for stats in engine.train(Batch(*batch) for batch in batches):
            if stats.step % LOOK and stats.step < config.steps:
                continue
            synchronised(engine.device)
            speed = (stats.step - first) * config.batch_size / (time.monotonic() - started)
            row = {"step": stats.step, "loss": float(stats.loss), "images_per_s": round(speed, 1)}
            with log.open("a") as file:
                file.write(json.dumps({"stage": folder.name, **row}) + "\n")
            if time.monotonic() > ends and stats.step < config.steps:
                break
        if engine.step > first:
            store.save(engine.checkpoint())
    finally:
        store.close()
    print(f"{folder.name}: step {engine.step} of {config.steps}", flush=True)
    return engine.step == config.steps


def open_features(weights: str, device: torch.device) -> Extractor:
    """Return cifar-resnet56 with the weights of a file."""
    return CifarResNetExtractor.open(56, device, weights=weights)


def finished(args: argparse.Namespace, stage: str, engine_of: Callable[[], Engine], images: ImageSet) -> bool:
    """Train a stage as far as the minutes go; of a finished one only its averaged model is kept."""
    if (args.out / f"{stage}-model").exists():
        return True
    engine, folder = engine_of(), args.out / stage
    if not train(engine, images, folder, args.ends, args.out / "log.jsonl"):
        return False
    save_model(args.out / f"{stage}-model", engine.averaged_spec(), engine.averaged_weights())
    remove(folder)
    return True


@dataclass
class Scored:
    """Samples that have been scored so far, in a file that the next call goes on from."""

    file: Path
    statistics: FeatureStatistics
    images: Tensor
    """The first 64, uint8."""
    seconds: float

    @classmethod
    def load(cls, file: Path, dim: int) -> Scored:
        """Return what earlier calls have scored."""
        if not file.is_file():
            return cls(file, FeatureStatistics.zero(dim), torch.zeros(0, 3, 32, 32, dtype=torch.uint8), 0.0)
        with np.load(file) as kept:
            statistics = FeatureStatistics(int(kept["n"]), kept["total"], kept["outer"])
            return cls(file, statistics, torch.from_numpy(kept["images"]), float(kept["seconds"]))

    def save(self) -> None:
        """Keep what has been scored."""
        sums = self.statistics
        with written_aside(self.file) as aside, aside.open("wb") as stream:
            np.savez(
                stream,
                n=sums.n,
                total=sums.total,
                outer=sums.outer,
                images=self.images.numpy(),
                seconds=self.seconds,
            )

    @torch.no_grad()
    def go_on(self, args: argparse.Namespace, model: Model, sampler: Sampler, extractor: Extractor) -> bool:
        """Score further samples; return False if the time is over before the last."""
        device = next(model.parameters()).device
        while (first := self.statistics.n) < args.samples:
            started = time.perf_counter()
            indices = torch.arange(first, min(first + args.batch_size, args.samples), device=device)
            images = to_uint8(model.sample(indices, seed=1, sampler=sampler)).cpu()
            self.seconds += time.perf_counter() - started
            self.statistics += FeatureStatistics.of(extractor.features(images))
            self.images = torch.cat([self.images, images])[:64]
            self.save()
            if time.monotonic() > args.ends and self.statistics.n < args.samples:
                return False
        return True


def score(args: argparse.Namespace, student: str, test: ImageSet) -> dict[str, Any] | None:
    """Return the distances of samples to the test images, and keep grids; None if the time is over."""
    device = torch.device(args.device)
    extractor = open_features(args.weights, device)
    reference = FeatureStatistics.of(extractor.features(test.images))
    wanted: list[tuple[str, str, Sampler]] = [
        ("teacher", "heun", Heun(steps=args.heun)),
        (student, "one-step", OneStep()),
        (student, "two-steps", Multistep((0.821,))),
    ]
    found: dict[str, Any] = {}
    for stage, name, sampler in wanted:
        model = load_model(args.out / f"{stage}-model", device)
        model.precision = args.precision
        scored = Scored.load(args.out / f"{stage}-{name}.npz", len(reference.total))
        if not scored.go_on(args, model, sampler, extractor):
            return None
        distance, label = frechet_distance(scored.statistics, reference), f"{stage.split('-')[0]} {name}"
        save_grid(scored.images, args.out / f"{label.replace(' ', '-')}.png")
        speed = round(args.samples / scored.seconds, 1)
        found[label] = {"distance": round(distance, 4), "images_per_s": speed}
        print(f"{label}: distance {distance:.4f}", flush=True)
    return found


def run(args: argparse.Namespace) -> int:
    """Do what is left to do within the minutes; return the exit status."""
    args.ends = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    status = trained_and_scored(args)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out} has {size / 1e6:.1f} MB, which the next call needs", flush=True)
    return status


def trained_and_scored(args: argparse.Namespace) -> int:
    """Train teacher and student and score them; return STOPPED when the time is over, else 0."""
    device, student = torch.device(args.device), f"student-{args.method}"
    images, test = (load_images(args.data / split) for split in ("train", "test"))

    def teacher_engine() -> Engine:
        config = recipe_of(args, "teacher")
        return Engine(config, model_spec(config, images), device=device)

    def student_engine() -> Engine:
        config, teacher = recipe_of(args, "student"), load_model(args.out / "teacher-model")
        return Engine(
            config,
            model_spec(config, images),
            device=device,
            teacher=teacher if config.method.needs_teacher else None,
            initial=teacher.network.state_dict(),
        )

    for stage, engine_of in (("teacher", teacher_engine), (student, student_engine)):
        if not finished(args, stage, engine_of, images):
            return STOPPED
    scores = score(args, student, test)
    if scores is None:
        return STOPPED
    left_out = ("data", "weights", "out", "ends")
    result = {"settings": {k: str(v) for k, v in vars(args).items() if k not in left_out}}
    result |= {"samples": args.samples, "reference": "test images", "scores": scores}
    write_json(args.out / "result.json", result)
    write_row("cifar_gpu", result)
    return 0


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--weights", required=True, help="file of the weights of cifar-resnet56")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, grids and result")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="training or scoring ends then, to go on later"
    )
    parser.add_argument("--method", choices=("ect", "cd"), default="ect")
    parser.add_argument("--teacher-steps", type=int, default=4000)
    parser.add_argument("--student-steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--channels", type=int, default=128, help="channels of DDPM++ at full resolution")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--heun", type=int, default=18, help="steps of the teacher's sampler")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    return parser


if __name__ == "__main__":
    sys.exit(run(options_parser().parse_args()))
