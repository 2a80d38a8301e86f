"""OpenAI's files: what they are is read from names and shapes; what they are not is said."""

import dataclasses
import json
import math
import pickle
from functools import cache

import pytest
import torch
from safetensors.torch import save_file

from cm_ray import recipes
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM
from cm_ray.networks.formats.openai import infer_network, placeholders, published_spec
from cm_ray.networks.formats.reading import SPEC_KEY, is_model, load_model, read_model
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, spec_to_dict
from cm_ray.networks.unet import UNet
from cm_ray.sampling.samplers import Heun, OneStep
from tests.networks.test_unet import trained_like

PUBLISHED = [
    *("edm_imagenet64_ema", "cd_imagenet64_l2", "cd_imagenet64_lpips", "ct_imagenet64"),
    *(form.format(data) for data in ("bedroom", "cat") for form in ("edm_{}256_ema", "ct_{}256")),
    *(f"cd_{data}256_{norm}" for data in ("bedroom", "cat") for norm in ("l2", "lpips")),
]
"""The twelve files of github.com/openai/consistency_models."""


def layer(name, *shape):
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def attends(name, width):
    yield from layer(f"{name}.norm", width)
    yield from layer(f"{name}.qkv", 3 * width, width, 1, 1)
    yield from layer(f"{name}.proj_out", width, width, 1, 1)


class TheirTensors:
    """Names and shapes of the tensors that OpenAI's UNetModel registers, with resblock_updown.

    Written from the description of the network and of its state dicts; it shares nothing with ours.
    Dhariwal & Nichol 2021, appendix A.
    """

    def __init__(self, channels, mult, blocks, attention, size, classes, scale_shift):
        self.channels, self.mult, self.blocks, self.classes = channels, mult, blocks, classes
        self.scale_shift, self.widths = scale_shift, [factor * channels for factor in mult]
        self.attends = [size >> level in attention for level in range(len(mult))]
        self.last = len(mult) - 1

    def residual(self, name, before, after):
        yield from layer(f"{name}.in_layers.0", before)
        yield from layer(f"{name}.in_layers.2", after, before, 3, 3)
        yield from layer(f"{name}.emb_layers.1", (1 + self.scale_shift) * after, 4 * self.channels)
        yield from layer(f"{name}.out_layers.0", after)
        yield from layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            yield from layer(f"{name}.skip_connection", after, before, 1, 1)

    def __iter__(self):
        yield from layer("time_embed.0", 4 * self.channels, self.channels)
        yield from layer("time_embed.2", 4 * self.channels, 4 * self.channels)
        if self.classes:
            yield "label_emb.weight", (self.classes, 4 * self.channels)
        yield from layer("input_blocks.0.0", self.widths[0], 3, 3, 3)
        skips = [self.widths[0]]
        yield from self.down(skips)
        width = self.widths[-1]
        yield from self.residual("middle_block.0", width, width)
        yield from attends("middle_block.1", width)
        yield from self.residual("middle_block.2", width, width)
        yield from self.up(skips)
        yield from layer("out.0", self.widths[0])
        yield from layer("out.2", 3, self.widths[0], 3, 3)

    def down(self, skips):
        for level, width in enumerate(self.widths):
            for _ in range(self.blocks):
                name = f"input_blocks.{len(skips)}"
                yield from self.residual(f"{name}.0", skips[-1], width)
                if self.attends[level]:
                    yield from attends(f"{name}.1", width)
                skips.append(width)
            if level < self.last:
                yield from self.residual(f"input_blocks.{len(skips)}.0", width, width)
                skips.append(width)

    def up(self, skips):
        before, stage = self.widths[-1], 0
        for level in range(self.last, -1, -1):
            for block in range(self.blocks + 1):
                name, width = f"output_blocks.{stage}", self.widths[level]
                yield from self.residual(f"{name}.0", before + skips.pop(), width)
                if self.attends[level]:
                    yield from attends(f"{name}.1", width)
                if level and block == self.blocks:
                    yield from self.residual(f"{name}.{1 + self.attends[level]}", width, width)
                before, stage = width, stage + 1


IMAGENET = (192, (1, 2, 3, 4), 3, (32, 16, 8), 64, 1000, True)
LSUN = (256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), 256, 0, False)


@cache
def published(stem):
    """The tensors of a published file, without memory."""
    shapes = TheirTensors(*(IMAGENET if "imagenet" in stem else LSUN))
    return {name: torch.empty(shape, device="meta") for name, shape in shapes}


@pytest.mark.parametrize(("sizes", "count", "millions"), [(IMAGENET, 541, 295.90), (LSUN, 566, 526.30)])
def test_the_network_has_the_published_tensors(sizes, count, millions):
    recipe = recipes.ct_imagenet64() if sizes == IMAGENET else recipes.ct_lsun256()
    *_, size, classes, _ = sizes
    with torch.device("meta"):
        network = UNet(recipe.network, (3, size, size), classes)
    shapes = dict(TheirTensors(*sizes))
    assert len(shapes) == count
    assert sum(map(math.prod, shapes.values())) / 1e6 == pytest.approx(millions, abs=5e-3)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == shapes


@pytest.mark.parametrize("stem", PUBLISHED)
def test_published_files_tell_what_they_are(stem):
    recipe = recipes.ct_imagenet64() if "imagenet" in stem else recipes.ct_lsun256()
    size, classes = (64, 1000) if "imagenet" in stem else (256, 0)
    spec = published_spec(stem, published(stem))
    assert spec.network == dataclasses.replace(recipe.network, gradient_checkpointing=False)
    assert (spec.shape, spec.class_names) == ((3, size, size), placeholders(classes))
    assert spec.diffusion.boundary == ("none" if stem.startswith("edm") else "skip")
    assert spec.sampler == (Heun(steps=40) if stem.startswith("edm") else OneStep())


def test_images_that_cannot_be_halved_so_often_are_said():
    config = dataclasses.replace(SMALL, channel_mult=(1,) * 8, blocks=1, conditional=False)
    with torch.device("meta"):
        weights = UNet(config, (3, 128, 128), 0).state_dict()
    with pytest.raises(UserError, match=r"ct_imagenet64: .* images of 64 pixels cannot be halved 7 times"):
        published_spec("ct_imagenet64", weights)


def test_published_time_points():
    """Against the points that the paper's figures name."""
    for stem, tau in [
        ("cd_imagenet64_lpips", 1.38),
        ("ct_imagenet64", 1.91),
        ("cd_bedroom256_lpips", 4.37),
        ("cd_bedroom256_l2", 3.52),
        ("ct_bedroom256", 3.99),
        ("ct_cat256", 5.25),
    ]:
        ((found,),) = published_spec(stem, published(stem)).time_points
        assert found == pytest.approx(tau, abs=6e-3)


SMALL = ADM(channels=64, channel_mult=(1, 2, 3), blocks=2, attention_resolutions=(8, 4), conditional=True)


@pytest.mark.parametrize("resample_blocks", [True, False])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("changes", [{}, {"channel_mult": (2, 1, 4, 4), "blocks": 1}, {"conditional": False}])
def test_shapes_tell_the_network(changes, scale_shift, resample_blocks):
    config = dataclasses.replace(SMALL, scale_shift=scale_shift, resample_blocks=resample_blocks, **changes)
    classes = 5 if config.conditional else 0
    with torch.device("meta"):
        network = UNet(config, (1, 16, 16), classes)
    assert infer_network(network.state_dict(), 16) == (config, 1, classes)


def small(tmp_path, name, change=lambda weights: weights, save=torch.save, **changes):
    """A file of a small network of these names, with all weights filled."""
    spec = ModelSpec(
        network=dataclasses.replace(
            SMALL, channel_mult=(1, 1), blocks=1, attention_resolutions=(32,), **changes
        ),
        diffusion=recipes.ct_imagenet64().diffusion,
        shape=(3, 64, 64),
        class_names=placeholders(2),
    )
    torch.manual_seed(0)
    made = Model(spec)
    trained_like(made.network)
    save(change({k: v.contiguous() for k, v in made.network.state_dict().items()}), tmp_path / name)
    return made, tmp_path / name


@pytest.mark.parametrize("name", ["cd_imagenet64.pt", "cd_imagenet64_mine.safetensors"])
def test_in_and_out_is_the_identity(name, tmp_path):
    made, file = small(tmp_path, name, save=save_file if name.endswith("safetensors") else torch.save)
    assert is_model(file)
    spec, weights = read_model(file)
    assert spec == made.spec
    assert all(torch.equal(weights[key], value) for key, value in made.network.state_dict().items())
    x, t, labels = torch.randn(2, 3, 64, 64), torch.tensor([1.0, 80.0]), torch.tensor([0, 1])
    with torch.no_grad():
        assert torch.equal(load_model(file)(x, t, labels), made.eval()(x, t, labels))


def older(weights):
    """Weights in half precision have attention as a convolution of flattened pixels: three dimensions."""
    flat = {k: v[..., 0] for k, v in weights.items() if k.endswith(("qkv.weight", "proj_out.weight"))}
    return {k: v.half() for k, v in (weights | flat).items()}


def test_half_precision_and_flattened_attention_of_one_head_are_read(tmp_path):
    made, file = small(tmp_path, "ct_imagenet64.pt", older)
    found = load_model(file).network.state_dict()
    for key, value in made.network.state_dict().items():
        assert torch.equal(found[key], value.half().float())


def test_flattened_attention_of_heads_is_refused(tmp_path):
    """Such files are of guided-diffusion, whose channels have another order by default."""
    _, file = small(tmp_path, "ct_imagenet64.pt", older, channels=128)
    with pytest.raises(UserError, match=r"which orders channels \(heads, three, dim\)"):
        load_model(file)


def without(name):
    return lambda weights: {k: v for k, v in weights.items() if k != name}


def code(weights):
    class Harmful:
        def __reduce__(self):
            return (exit, (3,))

    return Harmful()


def pickled(value, file):
    file.write_bytes(pickle.dumps(value, protocol=2))


def cut(value, file):
    torch.save(value, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "change", "save", "sentence"),
    [
        (
            "cd_faces64.pt",
            dict,
            torch.save,
            r"cd_faces64.pt has no specification.*_\{imagenet64,bedroom256,cat256\}",
        ),
        ("cd_imagenet256.pt", dict, torch.save, "has no specification"),
        ("model.pt", dict, torch.save, r"model.pt has no specification; .* cd_imagenet64_l2"),
        (
            "edm.pt",
            lambda w: {"a": w["out.2.bias"]},
            torch.save,
            "has no network that is known here: its tensors are called a;",
        ),
        ("cd_imagenet64.pt", code, pickled, "is a Python pickle, which could run any code"),
        ("cd_imagenet64.pt", dict, cut, r"is cut off after \d+ bytes, or damaged: download it again"),
        ("cd_imagenet64.pt", lambda w: list(w.values()), torch.save, "holds 143 tensors without names"),
        (
            "cd_imagenet64.pt",
            without("out.2.bias"),
            torch.save,
            "belongs to another network: it lacks out.2.bias;",
        ),
        (
            "cd_imagenet64.pt",
            lambda w: w | {"more": torch.zeros(1)},
            torch.save,
            "belongs to another network: it has more;",
        ),
        (
            "cd_imagenet64.pt",
            without("input_blocks.1.0.out_layers.3.weight"),
            torch.save,
            "is not a U-Net of OpenAI",
        ),
        (
            "cd_imagenet64.pt",
            lambda w: w | {"out.2.weight": torch.zeros(6, 64, 3, 3), "out.2.bias": torch.zeros(6)},
            torch.save,
            r"out.2.weight is \(6, 64, 3, 3\) there and \(3, 64, 3, 3\) here",
        ),
    ],
)
def test_what_cannot_be_read_is_said(name, change, save, sentence, tmp_path):
    _, file = small(tmp_path, name, change, save)
    with pytest.raises(UserError, match=sentence):
        load_model(file)


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        3,
        {"shape": 3},
        {"network": []},
        {"network": {"channels": "many"}},
        {"network": {"depth": 3}},
        {"shape": ["a", "b", "c"]},
        {"shape": [1]},
        {"sampler": 5},
        {"time_points": 1.0},
    ],
)
def test_a_specification_of_something_else_is_said(values, tmp_path):
    made, _ = small(tmp_path, "ct_imagenet64.pt")
    right = spec_to_dict(made.spec)
    wrong = right | values if isinstance(values, dict) and values else values
    weights = {"a": torch.zeros(1)}
    save_file(weights, tmp_path / "mine.safetensors", metadata={SPEC_KEY: json.dumps(wrong)})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / SPEC).write_text(json.dumps(wrong))
    save_file(weights, tmp_path / "model" / WEIGHTS)
    for place, name in (
        ("mine.safetensors", "The metadata of .*mine.safetensors"),
        ("model", r".*model.json"),
    ):
        with pytest.raises(UserError, match=f"^{name} is not the specification of a model"):
            read_model(tmp_path / place)
