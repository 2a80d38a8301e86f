"""Draw images from a trained model.   python jobs/sample.py models:/cm_ray-digits@champion --steps 2

MODEL is a run directory, a model's folder, a model in the registry: models:/NAME@champion, models:/NAME/3, a
file of OpenAI's weights, called as theirs are: cd_imagenet64_l2.pt, or a directory of diffusers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cm_ray.command_line.options import run_job
from cm_ray.core.samplers import Sampler
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import ModelSpec
from cm_ray.sampling.model_sampler import sampler_of
from cm_ray.sampling.multistep import multistep_of
from cm_ray.sampling.pictures import save_samples
from cm_ray.sampling.requests import Request, sample_all
from cm_ray.time_points.openai_indices import read_ts, taus
from cm_ray.tracking.locate import locate_model


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Which images, of what."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, models:/NAME@ALIAS, file of weights or directory of diffusers."""
    out: Path = Path("samples")
    """Where to, without an ending: OUT.png and OUT.npz."""
    samples: int = 100
    """How many images."""
    sampler: str = ""
    """one-step, multistep@2.0,0.8, multistep:4, heun:18, euler:40, dpm2:10, ancestral:100, pd:4; empty: the
    model's own."""
    steps: int = 0
    """Steps of the model's own sampler: network evaluations of a consistency model; instead of --sampler."""
    taus: tuple[float, ...] = ()
    """Time points of a consistency model beyond t_max, descending; instead of --sampler."""
    ts: str = ""
    """Time points as OpenAI's code writes them: 0,22,39, indices on a grid of --steps 40 boundaries, not with
    --sampler and --taus."""
    seed: int = 0
    """Seed of the noise, and of the labels of a conditional model."""
    label: int | None = None
    """Class of all images, by number; by default drawn at random. For conditional models."""
    batch_size: int = 256
    """Images per network evaluation."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""


def draw(args: Sample) -> None:
    """Draw the images and say where they are."""
    model = load_model(locate_model(args.model, args.tracking_uri), args.device)
    request = Request(
        count=args.samples,
        seed=args.seed,
        sampler=_sampler(args, model.spec),
        label=args.label,
        unit=args.batch_size,
    )
    images, labels = sample_all(model, request)
    for path in save_samples(images, args.out, labels=labels):
        print(path)


def _sampler(args: Sample, spec: ModelSpec) -> Sampler:
    if not args.ts:
        return sampler_of(spec, args.sampler, args.steps, args.taus)
    if args.sampler or args.taus:
        raise UserError("Give one of --ts, --sampler and --taus.")
    ends = {"t_min": spec.diffusion.t_min, "t_max": spec.diffusion.t_max, "rho": spec.diffusion.rho}
    points = taus(read_ts(args.ts, args.steps), args.steps, **ends)
    return multistep_of(points, spec.diffusion)


if __name__ == "__main__":
    run_job(Sample, draw, __doc__ or "")
