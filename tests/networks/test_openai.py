"""OpenAI's files: what they are is read from names and shapes; what they are not is said."""

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cm_ray import presets
from cm_ray.config import NetworkConfig
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.openai import infer_network, placeholders, published_spec
from cm_ray.networks.parts import network_of
from cm_ray.networks.reading import is_model, load_model, read_model
from cm_ray.networks.unet import UNet
from tests.networks.test_unet import trained_like

PUBLISHED = [
    *("edm_imagenet64_ema", "cd_imagenet64_l2", "cd_imagenet64_lpips", "ct_imagenet64"),
    *(form.format(data) for data in ("bedroom", "cat") for form in ("edm_{}256_ema", "ct_{}256")),
    *(f"cd_{data}256_{norm}" for data in ("bedroom", "cat") for norm in ("l2", "lpips")),
]
"""The twelve files of github.com/openai/consistency_models."""


def published(stem):
    """The tensors of a published file, without memory."""
    recipe = presets.ct_imagenet64() if "imagenet" in stem else presets.ct_lsun256()
    size, classes = (64, 1000) if "imagenet" in stem else (256, 0)
    spec = ModelSpec(
        network=recipe.network,
        diffusion=recipe.diffusion,
        shape=(3, size, size),
        class_names=placeholders(classes),
    )
    return spec, network_of(spec).state_dict()


@pytest.mark.parametrize("stem", PUBLISHED)
def test_published_files_tell_what_they_are(stem):
    wanted, weights = published(stem)
    assert len(weights) == (541 if "imagenet" in stem else 566)
    assert weights["middle_block.1.qkv.weight"].ndim == 4, "a convolution of images, as in OpenAI's code"
    spec = published_spec(stem, weights)
    assert dataclasses.replace(spec.network, gradient_checkpointing=True) == dataclasses.replace(
        wanted.network, gradient_checkpointing=True
    )
    assert (spec.shape, spec.class_names) == (wanted.shape, wanted.class_names)
    assert spec.diffusion.boundary == ("none" if stem.startswith("edm") else "skip")
    assert spec.sampler == ("heun:40" if stem.startswith("edm") else "one-step")


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
        ((found,),) = published_spec(stem, published(stem)[1]).time_points
        assert found == pytest.approx(tau, abs=6e-3)


SMALL = NetworkConfig(
    channels=64, channel_mult=(1, 2, 3), blocks=2, attention_resolutions=(8, 4), conditional=True
)


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
        diffusion=presets.ct_imagenet64().diffusion,
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
    """In half precision, attention as a convolution of flattened pixels: three dimensions."""
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
            r"cd_faces64.pt does not tell .*_\{imagenet64,bedroom256,cat256\}",
        ),
        ("cd_imagenet256.pt", dict, torch.save, "does not tell what it is"),
        ("model.pt", dict, torch.save, r"model.pt does not tell what it is: .* cd_imagenet64_l2"),
        ("edm.pt", lambda w: {"a": w["out.2.bias"]}, torch.save, "does not tell what it is"),
        ("cd_imagenet64.pt", code, pickled, "is no file of weights"),
        ("cd_imagenet64.pt", dict, cut, "is no file of weights"),
        ("cd_imagenet64.pt", lambda w: {"model": w}, torch.save, "does not hold tensors by name"),
        (
            "cd_imagenet64.pt",
            without("out.2.bias"),
            torch.save,
            r"out.2.bias is missing there and \(3,\) here",
        ),
        (
            "cd_imagenet64.pt",
            lambda w: w | {"more": torch.zeros(1)},
            torch.save,
            "more is .* and missing here",
        ),
        (
            "cd_imagenet64.pt",
            without("input_blocks.1.0.out_layers.3.weight"),
            torch.save,
            "holds no U-Net",
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
