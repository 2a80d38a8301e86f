"""The training steps that `benchmarks/gpu.py` times: their recipes, their variants, and their check."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from plain_step import Draw, PlainTraining
from timing import random_images
from torch import Tensor, nn

from cm_ray import recipes
from cm_ray.core.averages import ConstantEMA
from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.networks.model import Model, ModelSpec, from_uint8
from cm_ray.settings.tree import override
from cm_ray.training import arithmetic
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

Variant = Literal["eager", "compiled", "graphs", "channels first", "compiled channels first", "plain"]
"""eager: the engine as it comes. compiled: with torch.compile. graphs: compiled, its kernels in CUDA graphs.
plain: the same layers in PyTorch's own layout in the loop of `plain_step.py`, of consistency training."""
MOST_CHECKED = 0.03
"""Relative difference of losses and, times ten, of updates that counts as rounding to bfloat16."""

_L2_CT = {"distance": "l2", "target": "constant", "target.mu": 0.99, "times.scales": "constant"}
_CIFAR10_CT = ("ct_cifar10", _L2_CT | {"times.scales.n": 151, "column.time_scale": 1000.0})  # the plain one's
_CIFAR10_CD = (
    "cd_cifar10",
    {
        "teacher.model": "given",
        "init_from.model": "",
        "distance": "l2",
        "target": "constant",
        "target.mu": 0.99,
    },
)
_ECT = ("ect_cifar10", {"init_from.model": "", "network": "ddpm++", "network.dropout": 0.0})
WORKLOADS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "cifar10 ddpm++ ect": _ECT,
    "imagenet64 adm ct": ("ct_imagenet64", _L2_CT | {"times.scales.n": 201}),
    "cifar10 ddpm++ ct": (_CIFAR10_CT[0], _CIFAR10_CT[1] | {"network": "ddpm++"}),
    "cifar10 ncsn++ ct": _CIFAR10_CT,
    "cifar10 ddpm++ cd": (_CIFAR10_CD[0], _CIFAR10_CD[1] | {"network": "ddpm++"}),
    "cifar10 ncsn++ cd": _CIFAR10_CD,
}
"""A recipe and what is changed of it: no weights of LPIPS, a grid and a target that do not move."""
_SMALL = {
    "network.channels": 16,
    "network.norm_groups": 8,
    "network.channel_mult": (1, 2),
    "network.blocks": 1,
    "network.attention_resolutions": (8,),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step to be timed."""

    workload: str
    variant: Variant
    batch_size: int
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cuda"
    small: bool = False
    """Small networks on images of 16 x 16, to try the benchmark on a CPU."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the images."""
        side = 64 if self.workload.startswith("imagenet64") else 32
        return (3, 16, 16) if self.small else (3, side, side)


def engine_of(case: Case, micro: int = 0) -> Engine:
    """Return the engine of a case. micro: the most images in a pass; 0: the whole batch.

    All weights are off their zero initialisation, so that every path takes part from the first step on.
    """
    base, changes = WORKLOADS[case.workload]
    common = {
        "batch_size": case.batch_size,
        "accumulate": max(1, case.batch_size // micro) if micro else 1,
        "precision": case.precision,
        "compile": case.variant.startswith("compiled"),
        "averages": ConstantEMA(decays=(0.999, 0.9999, 0.9999432)),
        "augmentation": "none",
        "network.conditional": False,
    }
    small: dict[str, Any] = dict(_SMALL) if case.small else {}
    if case.small and case.workload.startswith("imagenet64"):
        small["network.head_channels"] = 16
    config = override(recipes.named(base), common | dict(changes) | small)
    spec = ModelSpec(network=config.network, diffusion=config.diffusion, shape=case.shape)
    denoiser = dataclasses.replace(spec, diffusion=dataclasses.replace(config.diffusion, boundary="none"))
    torch.manual_seed(1)
    initial = _shaken(Model(spec).network)
    teacher = Model(denoiser) if config.method.needs_teacher else None
    if teacher is not None:
        teacher.network.load_state_dict(initial)
    engine = Engine(config, spec, device=case.device, teacher=teacher, initial=initial)
    networks = [model.network for model in (engine.student, engine.target, engine.teacher) if model]
    for network in networks:
        if case.variant == "graphs":
            network.compile(backend=arithmetic.BACKEND, options=_graph_options(), dynamic=False)
        elif "first" in case.variant:
            _channels_first(network)
    if "first" in case.variant:
        engine.averages = engine._fresh_averages()
    return engine


def stepper(case: Case, engine: Engine, batch: Batch | None = None) -> Callable[[], Tensor]:
    """Return what takes a step of a case and returns its loss."""
    given = batch or random_images(engine)
    if case.variant != "plain":
        return lambda: engine.one_step(given).loss
    config, method = engine.config, engine.method
    dtype = torch.bfloat16 if case.precision == "bfloat16" else None
    network = _channels_first(engine.student.network)
    training = PlainTraining(network, config.optimizer.learning_rate, config.averages.decays_at(0), dtype)
    taken = [0]

    def step() -> Tensor:
        images, number = from_uint8(given.images.to(case.device)), taken[0]
        taken[0] += 1
        positions = torch.arange(len(images), device=case.device)
        uniforms = uniform(config.seed, number, positions, Purpose.TIMES, (1,))[:, 0]
        t, s = method.times(uniforms, number, config.steps, config.noise)
        noise = normal(config.seed, number, positions, Purpose.NOISE, tuple(images.shape[1:]))
        return training.one_step(images, Draw(noise, t, s), method.target_decay(number, config.steps))

    return step


def plain_exists(workload: str) -> bool:
    """Return True if the plain program knows the method: consistency training with a target network."""
    return workload.endswith(" ct")


@dataclass(frozen=True)
class Checked:
    """The outcome of two steps of a case, compared with the eager program in float32."""

    loss: float
    """Largest relative difference of the losses."""
    update: float
    """Length of the difference of the two updates of the weights over that of the update."""

    @property
    def holds(self) -> bool:
        """True if both are rounding."""
        return self.loss < MOST_CHECKED and self.update < 10 * MOST_CHECKED


@dataclass(frozen=True)
class Reference:
    """Losses and update of two steps of the eager program in float32, on the CPU."""

    losses: list[float]
    update: Tensor

    @classmethod
    def of(cls, case: Case, micro: int = 32) -> Reference:
        """Take the steps: of the plain program in one pass where it fits, else of the engine in several."""
        plain = plain_exists(case.workload) and case.batch_size <= micro
        plainly = dataclasses.replace(
            case, variant="plain" if plain else "channels first", precision="float32"
        )
        engine = engine_of(plainly, micro=0 if plain else micro)
        return cls(*_two_steps(engine, stepper(plainly, engine)))

    def check(self, engine: Engine, step: Callable[[], Tensor]) -> Checked:
        """Take the first two steps of a case and compare them."""
        losses, update = _two_steps(engine, step)
        pairs = zip(losses, self.losses, strict=True)
        worst = max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
        return Checked(worst, float((update - self.update).norm() / self.update.norm()))


def _two_steps(engine: Engine, step: Callable[[], Tensor]) -> tuple[list[float], Tensor]:
    before = _flat(engine.student.network)
    losses = [float(step()) for _ in range(2)]
    return losses, _flat(engine.student.network) - before


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().cpu().reshape(-1) for p in network.parameters()])


def _shaken(network: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _graph_options() -> dict[str, bool] | None:
    inductor = arithmetic.BACKEND == "inductor"
    return {"fallback_random": True, "triton.cudagraphs": True} if inductor else None


def _channels_first(network: nn.Module) -> nn.Module:
    """Put a U-Net's weights into PyTorch's own layout, and images before its first layers."""
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    entries = [network.get_submodule("input_blocks.0"), *network.get_submodule("pyramid").children()]
    for entry in entries:
        entry.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    return network


def free() -> None:
    """Give back the memory of engines that are no longer used."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
