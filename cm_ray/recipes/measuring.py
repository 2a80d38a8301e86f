"""Settings that the commands share which measure a trained model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import UserError, setting
from cm_ray.networks.arithmetic import Precision
from cm_ray.own_code import CODE, CodeSettings
from cm_ray.recipes.sections import Resizing
from cm_ray.settings.duration import seconds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSettings:
    """The actors that sample and extract features."""

    count: int = 0
    """Actors; 0: one for each GPU, or for each CPU core where there is none."""
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    """Give GPUs to the actors; auto: if the cluster has any, or as before where unfinished work goes on."""
    gpus_each: float = 1.0
    """Share of a GPU that an actor takes; 0.5 puts two on each."""
    cpus_each: float = 1.0
    """CPU cores that an actor takes, and its PyTorch threads."""
    wait_for_nodes: Annotated[str, tyro.conf.arg(aliases=("--wait-for-nodes",))] = "0"
    """Time to wait for nodes that the actors need and the cluster does not have, such as 30m; 0: refuse at
    once."""

    def __post_init__(self) -> None:
        """Raise UserError on a time to wait that is no duration."""
        try:
            seconds_of(self.wait_for_nodes)
        except ValueError as error:
            raise UserError(f"{setting('actors.wait_for_nodes')} {error}.") from None


@dataclass(frozen=True, kw_only=True)
class JobOnData(ReadOptions, CodeSettings):
    """Settings of all commands that put a trained model and a data set together on a cluster."""

    data: str = ""
    """Images, as in training; empty: those that MODEL's run was trained on."""
    batch_size: int = 0
    """Images per network evaluation; 0: as many as fit into the memory, 256 at most."""
    actors: ActorSettings = field(default_factory=ActorSettings)
    run_dir: str = ""
    """Directory of everything that is written; the same command goes on from there. Empty: $CM_RAY_RUNS or
    ./runs, and a name made of the job's and MODEL's."""
    tracking_uri: str = ""
    """MLflow server or store, also of models:/ names; empty: $MLFLOW_TRACKING_URI, else mlflow.db beside the
    run directory; none: do not track."""


@dataclass(frozen=True, kw_only=True)
class MeasuringSettings(JobOnData):
    """Settings of all commands that score a trained model; each adds its own."""

    data: str = ""
    """Images to compare with, as in training, or an .npz file of the mu and sigma of their features (for FD);
    empty: those that MODEL's run was trained on."""
    extractor: str = field(default="", metadata=CODE)
    """inception-2015 (FID's), clean-fid (a cross-check of it), dinov2-vitl14 (FD-DINOv2), dinov2-vitb14,
    dinov2-vits14, cifar-resnet56, cifar-resnet20, digits, scattering (of images of any kind, without a
    download), or your own as package.module:factory; empty: that of MODEL's run."""
    weights: str = ""
    """File of the extractor's published weights, or a folder with it; empty: an environment variable, the
    cache, or a download, with the SHA-256 checked in any case."""
    resizing: Resizing = "legacy_tensorflow"
    """The resizing of images to Inception's 299 x 299: as CIFAR-10's FIDs were published, or clean."""
    labels: str = ""
    """Classes of a conditional model's samples: data (as often as in the images to compare with), balanced
    (all that MODEL was trained on, equally often, as FIDs are published), null (no class), or names, such as
    cat,dog; empty: as in MODEL's run, else data."""
    precision: Precision = "float32"
    """Arithmetic of the network, a part of a score's key; all but float32 are faster on GPUs."""
