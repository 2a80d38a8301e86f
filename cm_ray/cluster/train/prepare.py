"""What a run needs before its first step: shards, the model's specification, the lineage."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.cluster.runtime.console import shown
from cm_ray.data.open_source import open_source
from cm_ray.data.shards import Manifest, check_shards, is_shard_folder
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import check_fits
from cm_ray.recipes.config import DataConfig, TrainConfig
from cm_ray.sampling.text import TimePoints, own_sampler, parse
from cm_ray.storage.files import cache_root

_PACKAGES = ("cm_ray", "torch", "ray", "mlflow", "numpy", "pyarrow", "safetensors")


def prepare_shards(data: DataConfig) -> tuple[Path, Manifest]:
    """Return the folder of shards of the data; what is not yet sharded is sharded into the cache.

    Raises UserError when the data is missing, broken or not given.
    """
    if not data.path:
        raise UserError("No data is given: --data takes a folder, or the name of a data set.")
    folder = Path(data.path).expanduser().absolute()
    if not is_shard_folder(folder):
        with shown("byte") as fetched:
            source = open_source(data.path, progress=fetched)
        folder = cache_root() / "shards" / f"{source.name}-{source.identity[:12]}-{data.size}"
        if data.on_bad_image == "skip":
            folder = folder.with_name(folder.name + "-skip")
        with shown("shard") as progress:
            make_shards(
                source,
                folder,
                size=data.size,
                on_bad_image=data.on_bad_image,
                progress=progress,
            )
    manifest = Manifest.load(folder)
    check_shards(folder, manifest)
    if data.size and manifest.shape[1:] != (data.size, data.size):
        raise UserError(
            f"{folder} holds images of {manifest.shape[2]}x{manifest.shape[1]}, not of --data.size "
            f"{data.size}; make shards of that size with cm-ray shards, or give --data.size 0."
        )
    return folder, manifest


def model_spec(config: TrainConfig, manifest: Manifest) -> ModelSpec:
    """Return the specification of the model for these images.

    Raises UserError when the network does not fit them or labels are wanted and there are none.
    """
    check_fits(config.network, manifest.shape)
    if config.network.conditional and not manifest.classes:
        raise UserError("The images have no labels: give --network.no-conditional or labelled data.")
    return ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=manifest.shape,
        class_names=manifest.class_names,
        time_points=_time_points(config),
        sampler=own_sampler(config),
    )


def _time_points(config: TrainConfig) -> TimePoints:
    """Return the time points of the multistep samplers that are scored: the model's own, till a search."""
    if config.diffusion.boundary == "none":
        return ()
    samplings = [
        parse(text, config.diffusion, own=own_sampler(config)) for text in config.evaluation.samplers
    ]
    first = {len(sampling.taus): sampling.taus for sampling in reversed(samplings) if sampling.taus}
    return tuple(first[count] for count in sorted(first))


def lineage(manifest: Manifest) -> dict[str, str]:
    """Return where a run comes from: data, code, packages, machine and command, as flat text."""
    found = {
        "data.source": manifest.source,
        "data.fingerprint": manifest.fingerprint,
        "data.count": str(manifest.count),
        "data.skipped": str(manifest.skipped),
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
    found.update({f"package.{name}": _version(name) for name in _PACKAGES})
    revision = _git("rev-parse", "HEAD")
    if revision:
        dirty = "-dirty" if _git("status", "--porcelain") else ""
        found["git.revision"] = revision + dirty
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    """Return what git says of the code's checkout, empty if it is none."""
    code = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(code), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
