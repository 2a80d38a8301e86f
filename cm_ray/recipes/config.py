"""What a training run is made of: frozen dataclasses, one docstring a field.

The command line, the run directory's config.json, the sweeps' dotted paths and the MLflow parameters are
all made from these. A recipe (`cm_ray.recipes`) is a function that returns a complete `TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from cm_ray.errors import UserError, closest

T = TypeVar("T")

EXPERIMENT = "cm_ray"
"""Of MLflow, where nothing else is said."""
Resizing = Literal["legacy_tensorflow", "clean"]
"""How images come to the size of Inception; see `cm_ray.metrics.extractors.resizing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The images."""

    path: str = ""
    """A folder of shards (jobs/make_shards.py), of Hugging Face Parquet files or of image files; an .npz of
    uint8 NHWC images; or the name of a data set: digits, cifar10. What is not yet sharded is sharded into the
    cache first. Short: --data."""
    size: int = 0
    """Crop to a square and resize to this many pixels when sharding; 0 takes images as they are."""
    cache: Literal["auto", "memory", "stream"] = "auto"
    """memory: every worker keeps all images; stream: Ray Data reads shards as they are needed;
    auto: memory up to 1 GiB of raw pixels."""
    horizontal_flip: bool = True
    """Mirror every second image, at random."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """What to do with an image file that cannot be decoded; skipped ones are counted in the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """The U-Net F_theta. Image size, channels and classes come from the data."""

    family: Literal["adm", "ddpm++", "ncsn++"] = "adm"
    """adm: Dhariwal & Nichol 2021, OpenAI's; ddpm++ and ncsn++: Song et al. 2021, as in EDM."""
    channels: int = 128
    """Channels of the first level; a multiple of `norm_groups`."""
    channel_mult: tuple[int, ...] = (2, 2, 2)
    """Channels of each level over `channels`; every further level halves the resolution."""
    blocks: int = 4
    """Residual blocks per level."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Pixels per side at which attention is used."""
    head_channels: int = 64
    """Channels per attention head; 0: one head."""
    norm_groups: int = 32
    """Groups of every group normalisation."""
    scale_shift: bool = True
    """Let the time modulate the scale of the normalised features, not only their mean."""
    fourier_scale: float = 16.0
    """Standard deviation of the frequencies of ncsn++'s time embedding; iCT's is 0.02."""
    resample_blocks: bool = True
    """Change the resolution inside residual blocks; else by strided and upsampling convolutions."""
    dropout: float = 0.0
    """Probability of dropout in residual blocks."""
    conditional: bool = False
    """Condition on the class labels of the data."""
    gradient_checkpointing: bool = False
    """Recompute residual blocks in the backward pass: less memory, about a third more time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig:
    """The noise, its grid, and the preconditioning."""

    t_min: float = 0.002
    """epsilon, the smallest noise standard deviation (data in [-1, 1])."""
    t_max: float = 80.0
    """T, the largest noise standard deviation."""
    rho: float = 7.0
    """Curvature of the Karras time grids, of training and of sampling."""
    sigma_data: float = 0.5
    """Standard deviation of the data in [-1, 1]."""
    time_scale: float = 1000.0
    """The network sees time_scale · ln(t)/4: 1000 as in OpenAI's PyTorch code, 1 as in EDM."""
    column: Literal["edm", "vp", "ve"] = "edm"
    """How the network's input, output and time are scaled: the column of table 1 of Karras et al. 2022."""
    boundary: Literal["skip", "piecewise", "none"] = "skip"
    """f(x, t_min) = x by skip connections (Eq. 5 of the paper) or piecewise (Eq. 4), for consistency
    models; none makes a denoiser: a diffusion model (methods edm and pd)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """N(k), mu(k), which pairs of times, and their weights."""

    scales: Literal["adaptive", "doubling", "constant", "halving"] = "adaptive"
    """adaptive: N grows as in Algorithm 3; doubling: as in iCT; constant: N = s1 + 1 throughout; halving:
    the rounds of progressive distillation, whose students take s1, s1/2 ... s0 steps."""
    s0: int = 2
    """Scales at the start."""
    s1: int = 150
    """Scales at the end."""
    target: Literal["adaptive", "constant"] = "adaptive"
    """adaptive: mu(k) = exp(s0 ln mu0 / N(k)); constant: mu = mu0."""
    mu0: float = 0.9
    """Decay of the target network at the start; with target=constant, 0 takes the student as target."""
    proposal: Literal["uniform", "lognormal", "continuous"] = "uniform"
    """Which times to train on: neighbours on the grid, all alike or lognormal in t as in iCT; continuous:
    lognormal t without a grid, against the clean image (method edm) or ECT's r(t, step)."""
    p_mean: float = -1.1
    """Mean of ln t of the lognormal proposals."""
    p_std: float = 2.0
    """Standard deviation of ln t of the lognormal proposals."""
    ect_q: float = 2.0
    """r/t = 1 - n(t)/q^a in stage a = 1 .. ect_stages of ECT; n(t) = 1 + ect_k sigmoid(-ect_b t)."""
    ect_k: float = 8.0
    """See `ect_q`."""
    ect_b: float = 1.0
    """See `ect_q`."""
    ect_stages: int = 8
    """Stages of equal length in which r comes nearer to t."""
    weight: Literal["uniform", "snr", "snr+1", "karras", "truncated-snr", "inverse-gap"] = "uniform"
    """lambda: 1; t^-2; t^-2 + 1; t^-2 + sigma_data^-2 (EDM); max(t^-2, 1) (Salimans & Ho);
    1/(t - s) (iCT, ECT)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig:
    """The diffusion model that is distilled, or whose weights training continues from."""

    model: str = ""
    """A run by its name or directory, a model's folder, models:/NAME@ALIAS, a directory of diffusers, or a
    file of weights (.safetensors, .pt): OpenAI's by their names, or one for the network of this run. Copied
    into the run directory. Short: --teacher."""
    column: Literal["edm", "vp", "ve"] = "edm"
    """Scalings of a teacher that is a file of weights for the network of this run; others know their own."""
    solver: Literal["heun", "euler"] = "heun"
    """The step from t to s along the teacher's ODE in consistency distillation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceConfig:
    """d, the distance between f(x_t, t) and f(x_s, s)."""

    name: Literal["l1", "l2", "norm", "pseudo-huber", "lpips"] = "lpips"
    """Which distance; norm is the root of summed squares. lpips needs the weights of its trunk; they are
    downloaded once and SHA-256 checked."""
    c: float = 0.0
    """pseudo-huber's c; 0 stands for 0.00054 sqrt(D)."""
    lpips_net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The trunk of LPIPS."""
    lpips_size: int = 224
    """LPIPS sees images resized to this many pixels if they are smaller (OpenAI's 224); 0 keeps them."""
    lpips_weights: str = ""
    """File of the trunk's weights; empty: the cache, else its public address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Rectified Adam, as in the paper, or Adam."""

    name: Literal["radam", "adam"] = "radam"
    """Which optimizer."""
    learning_rate: float = 4e-4
    """Step size."""
    warmup_steps: int = 0
    """Steps in which the step size grows to its value; at the start of every round of method pd."""
    decay: Literal["constant", "linear"] = "constant"
    """linear: the step size falls to 0 at the last step (of every round of method pd)."""
    beta2: float = 0.999
    """Memory of the squared gradients. RAdam warms up for about 1/(1 - beta2) steps: short runs want less."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    gradient_clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """What is kept to go on from."""

    every: int = 1000
    """Steps between checkpoints; one is always written at the end."""
    keep: int = 2
    """How many of the last checkpoints to keep, beside the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Samples and scores."""

    every: int = 0
    """Steps between sample grids (and scores, where there is an extractor); 0 only at the end."""
    extractor: str = "none"
    """Features for the Fréchet distance: inception-2015 (FID's), clean-fid (a cross-check of it),
    cifar-resnet56, cifar-resnet20, digits (a small classifier of the embedded data), your own as
    package.module:factory; none: no scores."""
    weights: str = ""
    """File of the extractor's published weights, or a folder with it; empty: an environment variable, the
    cache, or a download, with the SHA-256 checked in any case."""
    resizing: Resizing = "legacy_tensorflow"
    """How Inception's images come to 299 x 299: as CIFAR-10's FIDs were published, or clean (Parmar et al.
    2022)."""
    samples: int = 0
    """Samples to score; 0 takes as many as there are images in the data."""
    grid: int = 10
    """Samples per side of a grid picture."""
    samplers: tuple[str, ...] = ("one-step", "multistep@0.821")
    """What to score, the first decides: one-step, multistep@2.0,0.8 (time points beyond t_max),
    multistep:4 (evaluations), heun:18, euler:40, dpm2:10, ancestral:100 (steps), heun:32,s_churn=40,
    pd:4; own: the model's own."""
    batch_size: int = 256
    """Images per network evaluation when sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsConfig:
    """Who samples and extracts features."""

    count: int = 0
    """Actors; 0: one for each GPU, or for each CPU core where there is none."""
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    """Whether actors have GPUs; auto: if the cluster has any."""
    gpus_each: float = 1.0
    """Share of a GPU that an actor takes; 0.5 puts two on each."""
    cpus_each: float = 1.0
    """CPU cores that an actor takes, and its PyTorch threads."""


@dataclass(frozen=True, kw_only=True)
class MeasuringConfig:
    """What a trained model is measured with; each job that measures adds its own."""

    data: str = ""
    """Images to compare with, as in training; empty: those that MODEL's run was trained on."""
    size: int = 0
    """Crop and resize the images to this many pixels; 0 takes them as they are."""
    extractor: str = ""
    """inception-2015 (FID's), clean-fid (a cross-check of it), cifar-resnet56, cifar-resnet20, digits, or
    your own as package.module:factory; empty: that of MODEL's run."""
    weights: str = ""
    """File of the extractor's published weights, or a folder with it; empty: an environment variable, the
    cache, or a download, with the SHA-256 checked in any case."""
    resizing: Resizing = "legacy_tensorflow"
    """How Inception's images come to 299 x 299: as CIFAR-10's FIDs were published, or clean."""
    batch_size: int = 256
    """Images per network evaluation."""
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    run_dir: str = ""
    """Where everything goes; the same command goes on from there. Empty: $CM_RAY_RUNS or ./runs, and a name
    made of the job's and MODEL's."""
    tracking_uri: str = ""
    """MLflow server or store, also of models:/ names; empty: $MLFLOW_TRACKING_URI, else mlflow.db beside the
    run directory; none: do not track."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where it runs."""

    num_workers: int = 1
    """Training workers; each takes batch_size / num_workers images a step. Short: --num-workers."""
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    """One GPU per worker; auto: if the cluster has one for each."""
    cpus_per_worker: float = 0.0
    """CPUs reserved per worker; 0: what is left when Ray Data has its share, at most 1 (GPU: 4)."""
    threads: int = 0
    """PyTorch threads per worker on CPU; 0: the node's cores over its workers. Part of bit-equality."""
    max_failures: int = 3
    """How often a dead worker is replaced, and training goes on from the last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A complete training run."""

    name: str = "run"
    """Name of the run: of its default run directory and in MLflow."""
    run_dir: str = ""
    """Where everything of the run goes, on storage that all nodes see; the same command goes on from
    there. Empty: $CM_RAY_RUNS or ./runs, and `name`."""
    method: Literal["ct", "cd", "edm", "pd"] = "ct"
    """ct: consistency training, also with the settings of iCT and ECT; cd: consistency distillation; edm: a
    diffusion model, such as a teacher; pd: progressive distillation."""
    init_from: str = ""
    """A model whose weights training starts from, named as --teacher; teacher: that one; empty: random
    weights."""
    steps: int = 800_000
    """K, training steps; of all rounds together in method pd."""
    batch_size: int = 512
    """Images per step, over all workers."""
    accumulate: int = 1
    """Forward and backward passes per step and worker, each with its part of the batch."""
    seed: int = 0
    """Seed of weights, noise, times and data order."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the networks' arithmetic (autocast); weights, averages, optimizer's state, preconditioning
    and loss stay float32."""
    compile: bool = False
    """Compile the networks by torch.compile: minutes at the start. Results are the same to rounding."""
    ema_decays: tuple[float, ...] = (0.9999,)
    """Decays of the averages of the student's weights; the first is the one to sample from."""
    log_every: int = 100
    """Steps between rows of metrics.jsonl."""
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    distance: DistanceConfig = field(default_factory=DistanceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


ALIASES = {
    "--data": "--data.path",
    "--teacher": "--teacher.model",
    "--num-workers": "--cluster.num-workers",
}
"""Short options of the command line, for what every first command needs."""

OPERATIONAL = (
    "name",
    "run_dir",
    "log_every",
    "data.path",
    "data.cache",
    "data.on_bad_image",
    "network.gradient_checkpointing",
    "distance.lpips_weights",
    "checkpoint",
    "evaluation",
    "cluster",
    "tracking",
)
"""Dotted paths (and all below them) that may change between a run and its continuation."""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a config by dotted path, in order."""
    leaves: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        nested = dataclasses.is_dataclass(value)
        leaves.update(flatten(value, f"{prefix}{item.name}.") if nested else {prefix + item.name: value})
    return leaves


def override(config: T, changes: Mapping[str, Any]) -> T:
    """Return `config` with values put at dotted paths (``distance.name``, ``schedule.s0``).

    Raises UserError on an unknown path, with the nearest known one, or on a value of another type.
    """
    known = list(flatten(config))
    for path, value in changes.items():
        if path not in known:
            raise UserError(f"There is no setting {path!r}: {closest(path, known)}")
        config = _put(config, path.split("."), value, path)
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as nested dicts of JSON values."""
    return {
        item.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for item in dataclasses.fields(config)
        for value in [getattr(config, item.name)]
    }


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a config of type `kind` from what `to_dict` made; missing fields take their defaults.

    Raises UserError on an unknown field or a value of another type.
    """
    return override(kind(), _dotted(values))


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return the settings, beside operational ones, in which a run and its continuation differ."""
    before, after = flatten(old), flatten(new)
    return [
        f"{path} ({before[path]} there, {after[path]} here)"
        for path in before
        if before[path] != after[path]
        and not any(path == free or path.startswith(free + ".") for free in OPERATIONAL)
    ]


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        leaves.update(_dotted(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return leaves


def _put(config: Any, names: list[str], value: Any, path: str) -> Any:
    name, *rest = names
    if rest:
        return dataclasses.replace(config, **{name: _put(getattr(config, name), rest, value, path)})
    hint = typing.get_type_hints(type(config))[name]
    return dataclasses.replace(config, **{name: _cast(value, hint, path)})


def _cast(value: Any, hint: Any, path: str) -> Any:
    """Return `value` as the field's type; JSON's lists become tuples and its integers floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{path} cannot be {value!r}: {closest(str(value), [str(a) for a in arguments])}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_cast(item, arguments[0], path) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and type(value) is hint:
        return value
    wanted = hint.__name__ if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else hint
    raise UserError(f"{path} must be {wanted}, not {value!r}.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
