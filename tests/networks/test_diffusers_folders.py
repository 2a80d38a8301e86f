"""Folders of diffusers as people have them: a U-Net alone, variants, shards, .bin; and what is refused."""

import dataclasses
import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM
from cm_ray.errors import UserError, tell_once
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.reading import is_model, load_model, read_model
from cm_ray.networks.model import Model
from tests.networks.test_diffusers_pipeline import SPECS

STEM = "diffusion_pytorch_model"
SPEC = SPECS["convolutions"]
LEVELS = SPEC.diffusion
torch.manual_seed(0)
STATE = {name: torch.randn_like(value) for name, value in Model(SPEC).network.state_dict().items()}


@pytest.fixture(autouse=True)
def said(caplog):
    tell_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="cm_ray")
    return caplog


@pytest.fixture
def pipeline(tmp_path):
    write_pipeline(tmp_path / "p", SPEC, STATE)
    return tmp_path / "p"


@pytest.fixture
def unet(pipeline, tmp_path):
    """The folder of the U-Net, without a pipeline around it."""
    return (pipeline / "unet").rename(tmp_path / "u")


def weights_of(folder):
    return load_file(folder / f"{STEM}.safetensors")


def sharded(folder, ending="safetensors", variant=""):
    """Replace the weights of a folder by two shards and their index, as diffusers writes them."""
    state, places = weights_of(folder), {}
    (folder / f"{STEM}.safetensors").unlink()
    stem = STEM + (f".{variant}" if variant else "")
    for number, names in enumerate([sorted(state)[::2], sorted(state)[1::2]], 1):
        file = f"{stem}-0000{number}-of-00002.{ending}"
        part = {name: state[name].contiguous() for name in names}
        save_file(part, folder / file) if ending == "safetensors" else torch.save(part, folder / file)
        places |= dict.fromkeys(names, file)
    index = f"{STEM}.{ending}.index" + (f".{variant}" if variant else "") + ".json"
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return folder / index


def half(folder, name):
    state = {key: value.half() for key, value in weights_of(folder).items()}
    save_file(state, folder / name) if name.endswith("safetensors") else torch.save(state, folder / name)


def is_state(weights, state=STATE):
    return weights.keys() == state.keys() and all(torch.equal(weights[name], state[name]) for name in state)


HALVED = {name: value.half().float() for name, value in STATE.items()}


def test_a_unet_alone_is_read_with_the_defaults_of_the_scheduler(unet, said):
    assert is_model(unet)
    spec, weights = read_model(unet)
    assert spec == dataclasses.replace(SPEC, diffusion=Diffusion())
    assert is_state(weights)
    (record,) = said.records
    assert record.getMessage().endswith(
        "u has no scheduler: read as a consistency model for noise from 0.002 to 80 and data of deviation "
        "0.5, diffusers' defaults."
    )
    assert load_model(unet).spec == spec


def test_a_unet_of_a_run_has_its_noise_levels(unet, said):
    assumed = dataclasses.replace(
        SPEC, diffusion=Diffusion(boundary="none", t_max=20.0, column=EDM(sigma_data=1.0))
    )
    assert read_model(unet, assumed)[0].diffusion == assumed.diffusion
    assert not said.records


def test_a_unet_in_a_pipeline_has_the_noise_levels_of_its_scheduler(pipeline, said):
    for place in (pipeline, pipeline / "unet", pipeline / "unet" / f"{STEM}.safetensors"):
        assert is_model(place)
        spec, weights = read_model(place)
        assert spec.diffusion == LEVELS
        assert is_state(weights)
    assert not said.records


def to_bin(folder):
    torch.save(weights_of(folder), folder / f"{STEM}.bin")
    (folder / f"{STEM}.safetensors").unlink()


def only_half(name):
    def change(folder):
        half(folder, name)
        (folder / f"{STEM}.safetensors").unlink()

    return change


FORMS = {
    "safetensors": (lambda folder: None, STATE, ""),
    "full precision before a variant": (lambda folder: half(folder, f"{STEM}.fp16.safetensors"), STATE, ""),
    "bin": (to_bin, STATE, ""),
    "bin before a variant": (lambda f: (half(f, f"{STEM}.fp16.safetensors"), to_bin(f)), STATE, ""),
    "shards": (sharded, STATE, ""),
    "shards of bin": (lambda folder: sharded(folder, "bin"), STATE, ""),
    "shards of a variant": (lambda folder: sharded(folder, variant="fp16"), STATE, "fp16"),
    "half precision": (only_half(f"{STEM}.fp16.safetensors"), HALVED, "fp16"),
    "half precision in bin": (only_half(f"{STEM}.fp16.bin"), HALVED, "fp16"),
    "half precision called as full": (lambda folder: half(folder, f"{STEM}.safetensors"), HALVED, ""),
    "not averaged": (
        lambda f: (f / f"{STEM}.safetensors").rename(f / f"{STEM}.non_ema.safetensors"),
        STATE,
        "non_ema",
    ),
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_weights(kind, whole, pipeline, said):
    change, state, variant = FORMS[kind]
    change(pipeline / "unet")
    assert is_model(pipeline if whole else pipeline / "unet")
    spec, weights = read_model(pipeline if whole else pipeline / "unet")
    assert spec == SPEC
    assert is_state(weights, state)
    lines = [record.getMessage() for record in said.records]
    assert [f"took the variant {variant} of the weights" in line for line in lines] == [True] * bool(variant)


def test_a_variant_is_named_by_its_file(unet):
    half(unet, f"{STEM}.fp16.safetensors")
    (unet / f"{STEM}.safetensors").rename(unet / f"{STEM}.bf16.safetensors")
    with pytest.raises(
        UserError, match=r"several variants .*bf16.safetensors, .*fp16.safetensors\): give one of these"
    ):
        read_model(unet)
    assert is_state(read_model(unet / f"{STEM}.fp16.safetensors")[1], HALVED)


def changed(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def to_elsewhere(place):
    def change(folder):
        index = sharded(folder)
        content = json.loads(index.read_text())
        content["weight_map"] = dict.fromkeys(content["weight_map"], place)
        index.write_text(json.dumps(content))

    return change


def one_not_finite(folder):
    state = weights_of(folder)
    state["conv_out.bias"][1] = float("nan")
    save_file(state, folder / f"{STEM}.safetensors")


def of_other_classes(folder):
    state = weights_of(folder) | {"class_embedding.weight": torch.ones(3, 64)}
    save_file(state, folder / f"{STEM}.safetensors")


HARMS = {
    "a variant of the network": (
        lambda f: changed(f / "config.json", use_linear_attention=True),
        "has use_linear_attention, which UNet2DModel is not known to have here",
    ),
    "dual": (
        lambda f: changed(f / "config.json", dual_cross_attention=1, encoder_hid_dim=768),
        "has dual_cross_attention, encoder_hid_dim, which",
    ),
    "the mid block": (
        lambda f: changed(f / "config.json", mid_block_type="UNetMidBlock2DSimpleCrossAttn"),
        "mid_block_type 'UNetMidBlock2DSimple",
    ),
    "the norm": (lambda f: changed(f / "config.json", norm_eps=1e-6), "has norm_eps 1e-06; give"),
    "the class": (
        lambda f: changed(f / "config.json", _class_name="Transformer2DModel"),
        "is the config of a Transformer2DModel",
    ),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "is the config of a None"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "classes without end": (
        lambda f: changed(f / "config.json", num_class_embeds=10**9),
        "has num_class_embeds 1000000000, and the weights have 0 classes",
    ),
    "classes of the weights": (of_other_classes, "has num_class_embeds None, and the weights have 3 classes"),
    "channels without end": (
        lambda f: changed(f / "config.json", block_out_channels=[16 * 10**9, 32 * 10**9]),
        "claims a network that is too large|is not the config of an ADM",
    ),
    "blocks without end": (
        lambda f: changed(f / "config.json", layers_per_block=10**9),
        r"claims a network of 2 levels with 1000000000 blocks each, and has \d+ tensors",
    ),
    "words for numbers": (
        lambda f: changed(f / "config.json", layers_per_block="many", in_channels={}),
        "is not the config of an ADM U-Net",
    ),
    "a shard elsewhere": (to_elsewhere("../../secret.safetensors"), "is not an index of weights beside it"),
    "an absolute shard": (to_elsewhere("/etc/passwd"), "is not an index of weights beside it"),
    "a missing shard": (
        to_elsewhere(f"{STEM}-00003-of-00003.safetensors"),
        "is missing, which .*index.json lists: download it, too",
    ),
    "a wrong shard": (
        to_elsewhere(f"{STEM}-00001-of-00002.safetensors"),
        "lacks .* and .* more, which .*index.json lists",
    ),
    "an index of nothing": (lambda f: sharded(f).write_text("{}"), "is not an index of weights beside it"),
    "values": (one_not_finite, "conv_out.bias of .* has a value that is not finite"),
}


@pytest.mark.parametrize("kind", HARMS)
def test_what_changes_the_mathematics_or_cannot_be_read_is_named(kind, unet):
    harm, sentence = HARMS[kind]
    harm(unet)
    assert is_model(unet)
    with pytest.raises(UserError, match=sentence):
        load_model(unet)


def test_a_shard_by_itself_is_refused(unet):
    sharded(unet)
    with pytest.raises(UserError, match="is one of several shards: give their folder"):
        read_model(unet / f"{STEM}-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        (
            "model_index.json",
            {"vae": ["diffusers", "AutoencoderKL"]},
            r"has vae \['diffusers', 'AutoencoderKL'\]; give",
        ),
        ("model_index.json", {"unet": ["my_package", "UNet2DModel"]}, "has unet .*my_package"),
        ("model_index.json", {"scheduler": None}, "has scheduler None; give a pipeline of"),
        ("scheduler/scheduler_config.json", {"s_noise": 1.1}, "has s_noise 1.1; give"),
        ("scheduler/scheduler_config.json", {"sigma_max": 0.0}, "is not the config of a scheduler"),
        ("scheduler/scheduler_config.json", {"sigma_min": []}, "is not the config of a scheduler"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "v_prediction"},
            "has prediction_type, which",
        ),
    ],
)
def test_other_pipelines_are_named(file, changes, sentence, pipeline):
    changed(pipeline / file, **changes)
    with pytest.raises(UserError, match=sentence):
        load_model(pipeline)
