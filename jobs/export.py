"""Write a model for other tools.   python jobs/export.py runs/demo --format diffusers --out demo

MODEL is a run directory, a model's folder, models:/NAME@ALIAS, a file of OpenAI's weights, or a directory of
diffusers. diffusers: a directory for ConsistencyModelPipeline.from_pretrained; safetensors: one file of
weights with OpenAI's names that every MODEL can be; torch: the one-step sampler for torch.export.load; onnx:
the same for ONNX (pip install 'cm_ray[onnx]'); model: a model's folder, as a run leaves it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.command_line.options import run_job
from cm_ray.errors import UserError
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.exporting import write_onnx, write_program, write_safetensors
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, save_model
from cm_ray.tracking.locate import locate_model

SUFFIXES = {"diffusers": "", "model": "", "safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


@dataclass(frozen=True, kw_only=True)
class Export:
    """Which model, and as what."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, models:/NAME@ALIAS, file of weights or directory of diffusers."""
    format: Literal["diffusers", "safetensors", "torch", "onnx", "model"] = "diffusers"
    """What to write."""
    out: Path
    """Where to: a folder for diffusers and model, else a file, whose ending is added where it lacks. What is
    there already is never replaced."""
    grid: int = 40
    """Boundaries of the grid on which diffusers counts time points (its num_train_timesteps); published: 40
    for distilled models, 201 and 151 for trained ones. The model's own time points are rounded to it."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""


def export(args: Export) -> None:
    """Write the model and say how it is used."""
    out = _free(args)
    model = load_model(locate_model(args.model, args.tracking_uri))
    if args.format == "diffusers":
        timesteps = write_pipeline(out, model.spec, model.network.state_dict(), args.grid)
        print(out)
        for steps in timesteps.values():
            print(f"pipeline(num_inference_steps=None, timesteps={list(steps)})  # {len(steps)} evaluations")
        return
    _write(args.format, out, model)
    print(out)


def _write(kind: str, out: Path, model: Model) -> None:
    if kind == "model":
        save_model(out, model.spec, model.network.state_dict())
    else:
        {"safetensors": write_safetensors, "torch": write_program, "onnx": write_onnx}[kind](out, model)


def _free(args: Export) -> Path:
    """Return where to write. Raises UserError when anything is there: exports are whole or not there."""
    suffix = SUFFIXES[args.format]
    out = args.out if args.out.suffix == suffix or not suffix else args.out.with_name(args.out.name + suffix)
    if out.exists() and (suffix or not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is there already: remove it, or choose another place.")
    return out


if __name__ == "__main__":
    run_job(Export, export, __doc__ or "")
