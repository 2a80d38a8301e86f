"""The jobs of the chaos test: their commands, and what of their outcome no kill may change."""

import hashlib
import json
import re

import numpy as np
import optuna
from PIL import Image

import cm_ray as cm
from tests.api.conftest import TINY
from tests.cluster.processes import SMALL, job, rows
from tests.cluster.tiny_spaces import write_space

STEPS = 120
TRAINING = [*SMALL, "--steps", STEPS, "--log-every", 5, "--checkpoint.every", 10, "--evaluation.every", 20]
ACTORS = ["--actors.count", 3, "--actors.cpus-each", 1]
CLOCKS = ("images_per_s", "seconds", "time")
SPACE = "space={'distance': Categorical(['l2', 'l1']), 'batch_size': Categorical([16, 8])}, sampler='grid', "


def prepare(folder):
    """Make what the jobs read: a run of a tiny model, pictures, a search space."""
    changes = {**TINY, "steps": 2, "evaluation.extractor": "digits", "evaluation.samplers": ("own",)}
    cm.train("ict_digits", out=folder / "tiny", changes=changes, quiet=True)
    drawn = np.random.default_rng(0)
    for index in range(300):
        pixels = drawn.integers(0, 256, (8, 8), dtype=np.uint8)
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index:03d}.png")
    write_space(folder, SPACE)


def commands(given, place):
    """Return the command line of every job by name; it works in `place` on what is in `given`."""
    tiny, run = given / "tiny", place / "run"
    scoring = ["--run-dir", run, "--tracking-uri", "none", *ACTORS]
    return {
        "train, memory, 3 workers": job(
            "ict_digits.py", *TRAINING, "--batch-size", 36, "--run-dir", run, "--num-workers", 3
        ),
        "train, stream, 2 workers": job(
            "ict_digits.py", *TRAINING, "--data.cache", "stream", "--run-dir", run, "--num-workers", 2
        ),
        "score": job(
            "evaluate.py", tiny, *scoring, "--samples", 4000, "--batch-size", 16, "--samplers", "own"
        ),
        "time points": job(
            *("time_points.py", tiny, *scoring, "--nfe", 3, "--boundaries", 10, "--no-update"),
            *("--budget", 640, "--first", 80, "--batch-size", 8),
        ),
        "sweep": job(
            "sweep.py", given / "tiny.py", "--run-dir", run, "--scheduler", "none", "--concurrent", 2
        ),
        "edit": job(
            *(
                "edit.py",
                "upscale",
                "--model",
                tiny,
                "--image",
                given / "pictures",
                "--out",
                run,
                "--nfe",
                39,
            ),
            *("--samples", 2, "--label", 3, "--batch-size", 4, *ACTORS),
        ),
        "shards": job("make_shards.py", given / "pictures", "--out", run, "--rows-per-shard", 20),
    }


def outcome(name, run):
    """Return the digests of what a job has left, by name."""
    if name.startswith("train"):
        return _training(run)
    if name == "sweep":
        study = optuna.load_study(study_name="run", storage=f"sqlite:///{run / 'study.db'}")
        trials = [(trial.number, trial.state.name, trial.params, trial.values) for trial in study.trials]
        weights = {
            file.parent.parent.parent.name: _digest(file)
            for file in run.glob("trials/*/seed-0/model/weights*")
        }
        return {"trials": json.dumps(trials), **weights}
    kept = {"score": "scores.json", "time points": "result.json", "edit": "*.png", "shards": "*.*"}[name]
    return {file.name: _digest(file) for file in sorted(run.glob(kept)) if not file.name.startswith(".")}


def _training(run):
    log = [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows(run)]
    state = run / "checkpoints" / f"step-{STEPS:08d}" / "state.safetensors"
    result = json.loads((run / "result.json").read_text())
    del result["timings"], result["paths"]
    weights = {str(file.relative_to(run)): _digest(file) for file in run.rglob("weights.*")}
    return {"state": _digest(state), "log": json.dumps(log), "result": json.dumps(result), **weights}


def _digest(file):
    content = file.read_bytes()
    if file.name in ("scores.json", "result.json"):  # without paths, which differ
        content = re.sub(rb"/[\w/.-]+/", b"/", content)
    return hashlib.sha256(content).hexdigest()
