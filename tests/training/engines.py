"""Small engines for the tests of training: every setting that these tests change is named here."""

import dataclasses

import torch

from cm_ray import recipes
from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

SMALL = {
    "steps": 6,
    "batch_size": 8,
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "averages.decays": (0.5, 0.9),
    "augmentation": "flip",
    "network.conditional": False,
    "optimizer.learning_rate": 1e-3,
    "optimizer.beta2": 0.999,
}
_PAPER = {  # consistency training as in the paper, with a distance that needs no weights
    "times.scales": "adaptive",
    "times.scales.s0": 2,
    "times.scales.s1": 20,
    "times.proposal": "uniform",
    "target": "adaptive",
    "target.mu0": 0.9,
    "weight": "uniform",
    "distance": "l2",
}
_DENOISER = {"distance": "l2", "evaluation.samplers": ("own",)}
CHANGES = {
    # methods
    "ict": {},
    "paper": _PAPER,
    "cd": {
        "method": "cd",
        "teacher.model": "given",
        "times.scales": "constant",
        "times.scales.n": 21,
        "times.proposal": "uniform",
        "target": "constant",
        "target.mu": 0.9,
        "weight": "uniform",
        "distance": "l2",
    },
    "edm": _DENOISER | {"method": "edm", "weight": "karras"},
    "pd": _DENOISER
    | {
        "method": "pd",
        "teacher.model": "given",
        "rounds.s0": 1,
        "rounds.s1": 2,
        "weight": "truncated-snr",
        "optimizer.decay": "linear",
    },
    "ect": {"times": "tuned", "distance": "norm", "optimizer.warmup_steps": 2},
    "sct": {"method": "sct", "warmup": 2, "column": "trigflow", "column.sigma_data": 0.75},
    "scd": {
        "method": "scd",
        "teacher.model": "given",
        "warmup": 2,
        "column": "trigflow",
        "column.sigma_data": 0.75,
    },
    "ssm": {"method": "ssm", "weight": "snr", "column": "ve", "evaluation.samplers": ("own",)},
    "tcm": {"method": "tcm", "teacher.model": "given", "distance": "pseudo-huber", "times.ratio": 0.9},
    "meanflow": {
        "method": "meanflow",
        "times.apart": 0.5,
        "distance": "adaptive-l2",
        "distance.c": 1e-3,
        "weight": "uniform",
        "column": "linear",
        "evaluation.samplers": ("one-step", "jumps:2"),
    },
    "shortcut": {
        "method": "shortcut",
        "times.share": 0.5,
        "distance": "l2",
        "weight": "uniform",
        "target": "constant",
        "target.mu": 0.9,
        "column": "linear",
        "evaluation.samplers": ("one-step", "jumps:2"),
    },
    "continuous": {
        "method": "continuous-ct",
        "target": "constant",
        "target.mu": 0.9,
        "weight": "uniform",
        "distance": "l2",
    },
    # what a method may be combined with
    "dropout": {"network.dropout": 0.3},
    "much-dropout": {"network.dropout": 0.5},
    "conditional": {"network.conditional": True},
    "accumulated": {"accumulate": 2, "optimizer.gradient_clip": 1.0, "optimizer.weight_decay": 0.01},
    "clipped": {"optimizer.gradient_clip": 1.0},
    "recomputed": {"network.gradient_checkpointing": True},
    "adam": {"optimizer": "adam"},
    "radam": {"optimizer": "radam"},
    "uncertain": _DENOISER
    | {"method": "edm", "weight": "karras", "uncertainty": "learned", "uncertainty.channels": 16},
    "no-flip": {"augmentation": "none"},
    "augmented": {"augmentation": "edm", "augmentation.probability": 0.5},
    "18-boundaries": {"times.scales.n": 18},
    "10-scales": {"times.scales.s1": 10},
    "fast": {"optimizer.learning_rate": 3e-3, "optimizer.beta2": 0.99},
    "diverging": {"optimizer.learning_rate": 1e30},
    "wider": {"network.channels": 16},
    "one-level": {"network.channel_mult": (1,)},
    "ncsn++": {"network": "ncsn++"},
    "edm2": {
        "network": "edm2",
        "network.dropout": 0.3,
        "averages": "power",
        "uncertainty": "learned",
        "optimizer.inverse_sqrt_after": 2,
    },
    "lpips": {"distance": "lpips"},
    "small-lpips": {"distance": "lpips", "distance.net": "squeeze", "distance.size": 17},
}
"""Settings by name: methods, and what each may be combined with. Later ones win."""

VARIANTS = (
    "ict",
    "paper",
    "dropout",
    "edm",
    "cd",
    "pd",
    "ect",
    "scd",
    "tcm",
    "meanflow",
    "conditional",
    "accumulated",
    "edm2",
    "uncertain",
)
METHODS = ("ict", "paper", "edm", "cd", "pd", "ect", "scd", "tcm", "meanflow", "shortcut", "ssm", "uncertain")
"""Without dropout, whose mask depends on how a batch is split."""

IMAGES = torch.randint(0, 256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(32) % 10


def small(*changes, **values):
    """Return a small config of digits with some CHANGES by name, and fields of the config itself."""
    config = override(recipes.ict_digits(), SMALL)
    for change in changes:
        config = override(config, CHANGES[change])
    return override(config, values)


def specification(config):
    """Return the specification of the model that `config` trains."""
    return ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=(1, 8, 8),
        class_names=tuple("0123456789"),
        sampler=config.own_sampler(),
        augment=config.augmentation.values,
    )


def engine(config, **options):
    """Return an engine, with a teacher unless it is given another or None."""
    spec = specification(config)
    return Engine(config, spec, **{"teacher": teacher(spec)} | options)


def teacher(spec):
    """A denoiser with weights that are not zero anywhere, with dropout that must not be used."""
    diffusion = dataclasses.replace(spec.diffusion, boundary="none", guidance=())
    network = dataclasses.replace(spec.network, dropout=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = Model(dataclasses.replace(spec, diffusion=diffusion, network=network))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def shaken(made, std=0.05, seed=0):
    """Leave the zero initialisation: every weight is perturbed, in student, target and averages alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.student.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += std * noise.to(parameter.device)
    if made.target is not None:
        made.target.load_state_dict(made.student.state_dict())
    made.averages = made._fresh_averages()
    return made


def batches(made):
    """The worker's share of global batches that go round the images."""
    config, share = made.config, made.share
    rows = config.batch_size // share.world
    while True:
        first = made.step * config.batch_size + share.rank * rows
        index = torch.arange(first, first + rows) % len(IMAGES)
        yield Batch(IMAGES[index], LABELS[index])


def run(made, steps=None):
    """Train, to the end or for some steps, and return what each step reported."""
    stats = []
    for one in made.train(batches(made)):
        stats.append(one)
        if one.step == steps:
            break
    return stats


def weights(made):
    """Return all weights of the student in one vector."""
    return torch.cat([p.detach().flatten() for p in made.student.parameters()])


def draws(k):
    """The numbers of a step of a batch of 8."""
    positions = torch.arange(8)
    return (
        uniform(0, k, positions, Purpose.TIMES, (1,))[:, 0],
        normal(0, k, positions, Purpose.NOISE, (1, 8, 8)),
    )


def column(t):
    """Return times (b,) in the shape that multiplies images."""
    return t.view(-1, 1, 1, 1)
