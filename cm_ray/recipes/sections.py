"""The parts of a recipe beside the method and the network: data, optimizer, checkpoints, scores, cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import SettingError, require
from cm_ray.own_code import CODE
from cm_ray.recipes.worker_range import WorkerRange
from cm_ray.settings.choices import choice
from cm_ray.settings.duration import check_duration

EXPERIMENT = "cm_ray"
"""The default MLflow experiment."""
Resizing = Literal["legacy_tensorflow", "clean"]
"""The resizing of images to the size of Inception; see `cm_ray.metrics.extractors.resizing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings(ReadOptions):
    """The images, and the options by which they are read."""

    path: str = ""
    """A folder of shards (cm-ray shards) or its address (s3://bucket/shards), a folder of Parquet
    files or of image files; an .npz of uint8 images; or the name of a data set: digits, cifar10.
    Images that are not in shards are first written to shards in the cache."""
    cache: Literal["auto", "memory", "stream"] = "auto"
    """memory: every worker keeps all images; stream: Ray Data reads shards as they are needed;
    auto: memory up to 1 GiB of raw pixels."""


class Optimizer:
    """The optimizer: the kind of setting that its choices share."""

    learning_rate: float
    warmup_steps: int
    decay: Literal["constant", "linear"]
    inverse_sqrt_after: int
    beta2: float
    weight_decay: float
    gradient_clip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _AdamSettings(Optimizer):
    learning_rate: float = 4e-4
    """Step size."""
    warmup_steps: int = 0
    """Steps in which the step size grows to its value; at the start of every round of method pd."""
    decay: Literal["constant", "linear"] = "constant"
    """linear: the step size falls to 0 at the last step (of every round of method pd)."""
    inverse_sqrt_after: int = 0
    """t_ref, steps after which the step size falls as 1/sqrt(step/t_ref) (EDM2); 0: it does not."""
    beta2: float = 0.999
    """Decay of the average of squared gradients. RAdam warms up for about 1/(1 - beta2) steps: short runs
    want less."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    gradient_clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(self.learning_rate > 0, "learning_rate", f"must be positive, not {self.learning_rate}")
        require(self.warmup_steps >= 0, "warmup_steps", f"must not be negative, but is {self.warmup_steps}")
        after = self.inverse_sqrt_after
        require(after >= 0, "inverse_sqrt_after", f"must not be negative, but is {after}")
        require(0 < self.beta2 < 1, "beta2", f"must be in (0, 1), not {self.beta2}")
        require(self.weight_decay >= 0, "weight_decay", f"must not be negative, but is {self.weight_decay}")
        require(
            self.gradient_clip >= 0, "gradient_clip", f"must not be negative, but is {self.gradient_clip}"
        )


@choice(Optimizer, "radam")
@dataclass(frozen=True, slots=True, kw_only=True)
class RAdam(_AdamSettings):
    """Rectified Adam, as in the paper.  Liu et al. 2020."""


@choice(Optimizer, "adam")
@dataclass(frozen=True, slots=True, kw_only=True)
class Adam(_AdamSettings):
    """Adam with decoupled weight decay.  Kingma & Ba 2015; Loshchilov & Hutter 2019."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """Checkpoints, from which a run goes on."""

    every: int = 1000
    """Steps between checkpoints; one is always written at the end."""
    keep: int = 2
    """Number of the last checkpoints to keep, beside the best."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(self.every >= 1, "every", f"must be at least 1, not {self.every}")
        require(self.keep >= 1, "keep", f"must be at least 1, not {self.keep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """Samples and scores."""

    every: int = 0
    """Steps between sample grids (and scores, where there is an extractor); 0 only at the end."""
    extractor: str = field(default="none", metadata=CODE)
    """Features for the Fréchet distance: inception-2015 (FID's), clean-fid (a cross-check of it),
    dinov2-vitl14 (FD-DINOv2), dinov2-vitb14, dinov2-vits14, cifar-resnet56, cifar-resnet20, digits (a small
    classifier of the embedded data), scattering (a fixed transform for images of any kind, without a
    download), your own as package.module:factory; none: no scores."""
    weights: str = ""
    """File of the extractor's published weights, or a folder with it; empty: an environment variable, the
    cache, or a download, with the SHA-256 checked in any case."""
    resizing: Resizing = "legacy_tensorflow"
    """The resizing of images to Inception's 299 x 299: as CIFAR-10's FIDs were published, or clean (Parmar et
    al. 2022)."""
    samples: int = 0
    """Samples to score; 0 takes as many as there are images in the data, 50,000 at most."""
    grid: int = 10
    """Samples per side of a grid picture."""
    samplers: tuple[str, ...] = ("one-step", "multistep@0.821")
    """The samplers to score, the first decides: one-step, multistep@2.0,0.8 (time points after t_max),
    multistep:4 (NFE), heun:18, euler:40, dpm2:10, ancestral:100 (steps), heun:32,s_churn=40, pd:4,
    langevin:232,repeats=5, pc:1000,sde=vp, ode; own: the model's own."""
    labels: str = ""
    """Classes of a conditional model's samples: data (as often as in the images), balanced (all that occur,
    equally often), null, or names, such as cat,dog; empty: data where samples are scored, else balanced."""
    batch_size: int = 256
    """Images per network evaluation when sampling; a training takes no more than those of a micro-batch."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(self.every >= 0, "every", f"must not be negative, but is {self.every}")
        require(self.batch_size >= 1, "batch_size", f"must be at least 1, not {self.batch_size}")
        require(self.grid >= 1, "grid", f"must be at least 1, not {self.grid}")
        few = self.samples == 0 or self.samples >= 2
        require(few, "samples", "must be at least 2 for a score, or 0 for as many as there are images")
        require(bool(self.samplers), "samplers", "needs at least one, such as own")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Workers and their resources."""

    num_workers: int | str = 1
    """Training workers; each takes batch_size / num_workers images a step. A range such as 2:8 goes on with
    2, 4 or 8, as there is room, with the same batches and, on CPUs, to the same bits."""
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    """One GPU per worker; auto: if the cluster has GPUs. A run goes on on the device that it began on."""
    cpus_per_worker: float = 0.0
    """CPUs reserved per worker; 0: what Ray Data leaves, at most 1 (GPU: 4)."""
    threads: int = 0
    """PyTorch threads per worker on CPU; 0: the node's cores over its workers, or as at the run's start. Part
    of bit-equality."""
    max_failures: int = 3
    """Number of times that dead workers are replaced without a new checkpoint since."""
    wait_for_nodes: str = "0"
    """Time to wait for nodes that the run needs and the cluster does not have, such as 30m; 0: refuse at
    once. Clusters that start nodes on demand see the request."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        try:
            WorkerRange.of(self.num_workers)
        except ValueError as error:
            raise SettingError("num_workers", str(error)) from error
        cpus = self.cpus_per_worker
        require(cpus >= 0, "cpus_per_worker", f"must not be negative, but is {cpus}")
        require(self.threads >= 0, "threads", f"must not be negative, but is {self.threads}")
        failures = self.max_failures
        require(failures >= 0, "max_failures", f"must not be negative, but is {failures}")
        check_duration("wait_for_nodes", self.wait_for_nodes)

    @property
    def workers(self) -> WorkerRange:
        """The numbers of workers that there may be."""
        return WorkerRange.of(self.num_workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingSettings:
    """MLflow."""

    uri: str = ""
    """Tracking server (http://host:5000) or store (sqlite:////path/mlflow.db); empty: mlflow.db beside
    the run directory; none: do not track."""
    experiment: str = EXPERIMENT
    """MLflow experiment."""
    model_name: str = ""
    """Name to register the model under; empty: do not register."""
    parent_run: str = ""
    """Id of the MLflow run that this one is shown under; empty: none."""
