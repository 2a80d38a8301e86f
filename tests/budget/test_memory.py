"""Estimated memory: what a process really takes, what accumulation and recomputing save, and what fits."""

from functools import lru_cache
from pathlib import Path

import pytest
import torch

from cm_ray import recipes
from cm_ray.budget.measured_memory import measured_memory, tiny
from cm_ray.budget.memory import accumulate_for, most_rows, training_memory
from cm_ray.budget.memory_table import MARGIN, memory_table
from cm_ray.command_line.settings.memory import MemoryQuestion
from cm_ray.core.averages import PowerEMA
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

SHAPE = (3, 32, 32)
BUFFERS = 48 * 2**20
"""Buffers of libraries, which do not grow with the network."""
SMALL = {
    "batch_size": 16,
    "precision": "float32",
    "averages.decays": (0.99, 0.999),
    "network.channels": 64,
    "network.channel_mult": (1, 2),
    "network.blocks": 1,
    "network.conditional": False,
    "distance": "l2",
}
ONE_HEAD = {"network.head_channels": 0}


def small(**changes):
    config = override(
        recipes.ct_imagenet64(), SMALL | ONE_HEAD | {k.replace("__", "."): v for k, v in changes.items()}
    )
    return config, ModelSpec(network=config.network, diffusion=config.diffusion, shape=SHAPE)


counted = lru_cache(maxsize=None)(training_memory)
"""The count, which takes seconds, once for the same settings."""
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")


@linux
@pytest.mark.parametrize("name", ["ct_cifar10", "ct_imagenet64"])
def test_the_estimate_is_near_the_peak_of_a_process(name):
    """The networks are like two recipes', but small: beside the margin, buffers that do not grow are left."""
    config = recipes.named(name)
    heads = ONE_HEAD if config.network.family == "adm" else {}
    config = override(config, {"accumulate": 2, **SMALL, **heads})
    spec = ModelSpec(network=config.network, diffusion=config.diffusion, shape=SHAPE)
    expected, found = counted(config, spec, 2).step, measured_memory(config, spec, 2)
    assert 0.9 * expected < found < expected / (1 - MARGIN) + BUFFERS


@linux
@pytest.mark.parametrize(
    ("extractor", "rows"),
    [
        pytest.param("inception-2015", 8, marks=pytest.mark.slow),
        ("cifar-resnet56", 2),
        pytest.param("none", 8, marks=pytest.mark.slow),
    ],
)
def test_scores_and_checkpoints_are_in_the_estimate(extractor, rows):
    """The peak is that of the features of Inception, with a copy of the state; else of the steps with it."""
    thrifty = {"network__channels": 32, "network__gradient_checkpointing": True}
    config, spec = small(
        evaluation__extractor=extractor, accumulate=2, averages__decays=(0.9, 0.99), **thrifty
    )
    expected, found = counted(config, spec, rows), measured_memory(config, spec, rows, whole=True)
    print(extractor, found / 2**20, expected.total / 2**20, expected)
    assert 0.9 * expected.total < found < expected.total / (1 - MARGIN) + BUFFERS
    if extractor == "inception-2015":
        assert expected.evaluating > max(expected.batch, expected.optimizing)
        assert found > (expected.step + BUFFERS) / (1 - MARGIN), "the step alone is not enough"


@pytest.mark.parametrize("name", ["sct_digits", "ncsnv2_digits", "ict_cifar10"])
def test_every_recipe_has_a_tiny_form_that_loads_the_libraries(name):
    """A method may have no distance, and a network no levels."""
    recipe = recipes.named(name)
    made = tiny(recipe)
    assert (type(made.method), type(made.network)) == (type(recipe.method), type(recipe.network))
    assert made.network.channels == 32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_measured_where_there_is_none():
    with pytest.raises(UserError, match="There is no GPU here"):
        next(memory_table(MemoryQuestion(recipes=("ict_digits",), device="cuda", measure=2)))


def test_copies_are_a_checkpoint_and_a_snapshot():
    config, spec = small()
    made = Engine(config, spec)
    made.one_step(Batch(torch.zeros(16, *SHAPE, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64)))
    checkpoint = sum(tensor.nbytes for tensor in made.checkpoint().tensors.values())
    assert counted(config, spec, 1).copies == pytest.approx(checkpoint, rel=1e-3)
    with_snapshots = override(config, {"averages": PowerEMA()})
    lengths = len(with_snapshots.averages.lengths)
    copies = counted(with_snapshots, spec, 1).copies
    weights = 4 * counted(config, spec, 1).parameters
    assert copies == pytest.approx(checkpoint + (2 * lengths - 2) * weights, rel=1e-3)


def test_on_a_gpu_the_copies_are_not_on_the_device():
    config, spec = small()
    host, gpu = (counted(config, spec, 2, device) for device in ("cpu", "cuda"))
    assert host.total - host.copies >= host.step
    assert gpu.copies == host.copies
    assert gpu.total == gpu.state + gpu.extractor + max(gpu.batch, gpu.optimizing, gpu.evaluating)


def test_an_extractor_of_ones_own_is_not_counted():
    config, spec = small()
    none = counted(override(config, {"evaluation.extractor": "none"}), spec, 2)
    own = counted(override(config, {"evaluation.extractor": "a.module:name"}), spec, 2)
    assert (none.extractor, none.evaluating) == (own.extractor, own.evaluating)
    assert none.evaluating > 4 * none.parameters, "a copy of the model, and samples"


@linux
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "precision"), [("ct_cifar10", ""), ("ct_imagenet64", "bfloat16")])
def test_the_estimate_is_near_the_peak_of_a_recipe(name, precision):
    """Wants 13 GiB."""
    asked = MemoryQuestion(recipes=(name,), device="cpu", precision=precision, measure=2)
    _, _, *rows = memory_table(asked)
    for row in rows:
        assert 0.85 < float(row.split("|")[-2]) < 1 / (1 - MARGIN)


def test_state_is_weights_copies_and_moments():
    config, spec = small()
    memory = counted(config, spec, 1)
    assert memory.parameters == sum(p.numel() for p in Engine(config, spec).student.parameters())
    copies = 1 + 1 + 2 + 2  # student, target, averages, moments
    assert memory.state == pytest.approx(4 * memory.parameters * copies, rel=1e-4)  # and some filters
    assert memory.optimizing == 4 * memory.parameters * 3
    assert memory.step == memory.state + max(memory.batch, memory.optimizing)


def test_activations_grow_with_the_images_and_recomputing_saves_most():
    config, spec = small()
    one, two, four = (counted(config, spec, rows).batch for rows in (2, 4, 8))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
    thrifty = small(network__gradient_checkpointing=True)
    assert counted(*thrifty, 4).batch < 0.6 * two
    half = counted(*small(precision="bfloat16"), 4)
    assert half.batch < 0.6 * two
    assert counted(*small(precision="bfloat16"), 4, "cuda").batch > half.batch, "norms in float32"


def test_what_fits_fits():
    config, spec = small(accumulate=2)
    budget = counted(config, spec, 12).total
    rows = most_rows(config, spec, budget)
    assert rows in (11, 12)
    assert counted(config, spec, rows).total <= budget
    assert most_rows(config, spec, 2**20) == 0
    assert accumulate_for(config, 12) == 2
    assert accumulate_for(override(config, {"batch_size": 48, "cluster.num_workers": 2}), 5) == 6


@pytest.mark.parametrize("method", ["edm", "cd", "pd"])
def test_every_method_is_counted(method):
    target = {"target": "constant", "target__mu": 0.0} if method == "cd" else {}
    memory = counted(*small(method=method, evaluation__samplers=("own",), **target), 2)
    copies = 1 + (method != "edm") + 2 + 2  # student, teacher, averages, moments
    assert memory.state == pytest.approx(4 * memory.parameters * copies, rel=1e-4)


def test_lpips_is_counted():
    """Its trunk is larger than this network, and its images are 224 pixels wide."""
    config, spec = small()
    plain = counted(config, spec, 2)
    seen = counted(override(config, {"distance": "lpips"}), spec, 2)
    assert 55e6 < seen.state - plain.state < 62e6  # VGG-16 without its classifier: 14.7 M weights
    assert seen.batch - plain.batch > 100e6
