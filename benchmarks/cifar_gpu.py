"""CIFAR-10 in half an hour on one GPU: an EDM teacher, consistency tuning or distillation of it, a score.

    PYTHONPATH=. python benchmarks/cifar_gpu.py --data DIR --weights FILE --out DIR --minutes 9
    PYTHONPATH=. python benchmarks/cifar_gpu.py --data DIR --weights FILE --out DIR --method cd

data: a folder with train/ and test/, each with Parquet files of images. weights: those of cifar-resnet56. It
needs PyTorch, NumPy, Pillow, safetensors and PyArrow alone. After --minutes it writes a checkpoint into
--out and ends with status 3; the same command goes on from there, with the weights of an uninterrupted run
(on CPUs bit for bit). At the end the samples are scored against the test images by the Fréchet distance of
features of cifar-resnet56, which is no FID; result.json and grids of samples lie in --out, and a row in
results/cifar_gpu.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

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
from cm_ray.networks.model import Model, to_uint8
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.sampling.samplers import Heun, Multistep, OneStep, Sampler
from cm_ray.settings.tree import override
from cm_ray.storage.files import write_json
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


@torch.no_grad()
def samples_of(model: Model, sampler: Sampler, count: int, rows: int, device: torch.device) -> Tensor:
    """Return uint8 samples on the CPU (count, 3, h, w)."""
    parts = []
    for first in range(0, count, rows):
        indices = torch.arange(first, min(first + rows, count), device=device)
        parts.append(to_uint8(model.sample(indices, seed=1, sampler=sampler)).cpu())
    return torch.cat(parts)


def open_features(weights: str, device: torch.device) -> Extractor:
    """Return cifar-resnet56 with the weights of a file."""
    return CifarResNetExtractor.open(56, device, weights=weights)


def score(args: argparse.Namespace, engines: dict[str, Engine], test: ImageSet) -> dict[str, Any]:
    """Sample from teacher and student, keep grids, and return their distances to the test images."""
    device = torch.device(args.device)
    extractor = open_features(args.weights, device)
    reference = FeatureStatistics.of(extractor.features(test.images))
    wanted: list[tuple[str, str, Sampler]] = [
        ("teacher", "heun", Heun(steps=args.heun)),
        ("student", "one-step", OneStep()),
        ("student", "two-steps", Multistep((0.821,))),
    ]
    found: dict[str, Any] = {}
    for stage, name, sampler in wanted:
        engine = engines[stage]
        model = engine.averaged_model()
        model.precision = engine.config.precision
        started = time.perf_counter()
        images = samples_of(model, sampler, args.samples, args.batch_size, device)
        seconds = time.perf_counter() - started
        distance = frechet_distance(FeatureStatistics.of(extractor.features(images)), reference)
        save_grid(images[:64], args.out / f"{stage}-{name}.png")
        found[f"{stage} {name}"] = {
            "distance": round(distance, 4),
            "images_per_s": round(len(images) / seconds, 1),
        }
        print(f"{stage} {name}: distance {distance:.4f}", flush=True)
    return found


def run(args: argparse.Namespace) -> int:
    """Train what is left to train within the minutes, and score at the end; return the exit status."""
    ends, device = time.monotonic() + 60 * args.minutes, torch.device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    images, test = (load_images(args.data / split) for split in ("train", "test"))
    log, config = args.out / "log.jsonl", recipe_of(args, "teacher")
    spec = model_spec(config, images)
    teacher = Engine(config, spec, device=device)
    if not train(teacher, images, args.out / "teacher", ends, log):
        return STOPPED
    config, weights = recipe_of(args, "student"), teacher.averaged_weights()
    denoiser = Model(spec)
    denoiser.network.load_state_dict(weights)
    student = Engine(
        config,
        model_spec(config, images),
        device=device,
        teacher=denoiser if config.method.needs_teacher else None,
        initial={name: tensor.cpu() for name, tensor in weights.items()},
    )
    if not train(student, images, args.out / f"student-{args.method}", ends, log):
        return STOPPED
    scores = score(args, {"teacher": teacher, "student": student}, test)
    result = {"settings": {k: str(v) for k, v in vars(args).items() if k not in ("data", "weights", "out")}}
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
        "--minutes", type=float, default=9.0, help="training ends after these, to go on later"
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
