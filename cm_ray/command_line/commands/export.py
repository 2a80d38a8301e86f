"""The command that writes a model for other tools."""

from __future__ import annotations

from pathlib import Path

from cm_ray.command_line.settings.export import Export
from cm_ray.errors import UserError
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.exporting import write_onnx, write_program, write_safetensors
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, save_model
from cm_ray.tracking.locate import locate_model

SUFFIXES = {"diffusers": "", "model": "", "safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


def run(args: Export) -> None:
    """Write the model and print the files, and how a pipeline is called."""
    out = _free(args)
    model = load_model(locate_model(args.model, args.tracking_uri))
    if args.format == "diffusers":
        timesteps = write_pipeline(out, model.spec, model.network.state_dict(), args.boundaries)
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
    """Return the path to write. Raises UserError when anything is there: exports are whole or not there."""
    suffix = SUFFIXES[args.format]
    out = args.out if args.out.suffix == suffix or not suffix else args.out.with_name(args.out.name + suffix)
    if out.exists() and (suffix or not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is there already: remove it, or choose another place.")
    return out
