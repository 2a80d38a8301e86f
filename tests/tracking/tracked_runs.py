"""The tests of tracking share these: scores, tiny models, rows of a log."""

import io
import socket
from dataclasses import replace

import torch
from PIL import Image

from cm_ray.core.diffusion import Diffusion
from cm_ray.networks.architectures import ADM
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.storage.files import write_json
from tests.results import result, score

__all__ = [
    "LINEAGE",
    "finish",
    "free_port",
    "log",
    "png",
    "score",
    "tiny_model",
    "tiny_spec",
    "with_tracking",
]

LINEAGE = {
    "data.source": "/data/photos",
    "data.fingerprint": "abc",
    "data.count": "1797",
    "data.skipped": "3",
    "data.classes": "cat, dog",
    "command": "cm-ray train ict --data /data/photos",
    "git.revision": "def",
}


def tiny_spec(*, conditional=False):
    network = ADM(
        channels=8,
        norm_groups=4,
        head_channels=8,
        channel_mult=(1,),
        blocks=1,
        attention_resolutions=(),
        conditional=conditional,
    )
    names = ("a", "b", "c") if conditional else ()
    return ModelSpec(
        network=network,
        diffusion=Diffusion(),
        shape=(1, 8, 8),
        class_names=names,
        time_points=((0.8,),),
    )


def tiny_model(seed=0, *, conditional=False):
    """Random weights, also where training starts from zero, so that noise and labels matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(tiny_spec(conditional=conditional)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def log(run, step, **more):
    run.append_metrics({"step": step, "loss": 1 / (step + 1), "num_scales": 10, "seconds": step / 4, **more})


def with_tracking(run, **changes):
    """Let a run be tracked elsewhere."""
    config = run.config()
    run.claim(replace(config, tracking=replace(config.tracking, **changes)))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def png(side, grey=128):
    """Return the bytes of a grey picture of side x side pixels."""
    file = io.BytesIO()
    Image.new("L", (side, side), grey).save(file, "PNG")
    return file.getvalue()


def finish(run, *scores, **changes):
    """Let a run be finished, with final grids and scores."""
    grid = run.samples / "final-one-step.png"
    grid.write_bytes(png(16, 64))
    rows = [one.to_row() for one in scores]
    paths = {"model": "model", "samples": ["samples/final-one-step.png"]}
    write_json(run.result_file, result(*rows, steps=8, model_step=4, paths=paths, **changes))
