"""Weights are found under prefixes and in groups of checkpoints, the averaged ones first, and it is said."""

import dataclasses
import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from cm_ray.errors import UserError, tell_once
from cm_ray.networks.custom import custom_network
from cm_ray.networks.formats.reading import is_model, load_model, network_digest, read_model
from cm_ray.networks.formats.weight_files import split_part
from cm_ray.networks.model import Model
from tests.networks.custom_networks import TinyNetwork
from tests.networks.test_diffusers_pipeline import SPECS, to_diffusers
from tests.networks.test_edm import Theirs
from tests.networks.test_model import SPEC

torch.manual_seed(0)
RAW = {name: torch.randn_like(value) for name, value in Model(SPEC).network.state_dict().items()}
EMA = {name: value + 1 for name, value in RAW.items()}
OPTIMIZER = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}},
    "param_groups": [{"lr": 1e-4}],
}


@pytest.fixture(autouse=True)
def said(caplog):
    """Sentences are told in every test, and only once in each."""
    tell_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="cm_ray")
    return caplog


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def squeezed(state):
    """Names as of LitEma, the averages of latent diffusion's code."""
    return {f"model_ema.diffusion_model{name.replace('.', '')}": value for name, value in state.items()}


def saved(tmp_path, content):
    torch.save(content, tmp_path / "mine.pt")
    return tmp_path / "mine.pt"


def taken(file, part=""):
    spec, weights = read_model(Path(f"{file}#{part}") if part else file, SPEC)
    assert spec == SPEC
    return weights


def is_equal(weights, state):
    return weights.keys() == state.keys() and all(torch.equal(weights[name], state[name]) for name in state)


LIGHTNING = {
    "epoch": 3,
    "global_step": 100,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": {**under("net.", RAW), "loss.scale": torch.ones(1)},
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {"EMA": {"decay": 0.999}},
    "optimizer_states": [OPTIMIZER],
    "hyper_parameters": {"lr": 1e-4, "name": "x"},
}
ONE = {
    "as it is": (RAW, ""),
    "an ordered dict": (OrderedDict(RAW), ""),
    "with numbers": ({**RAW, "step": 3, "version": "1"}, ""),
    "data parallel": (under("module.", RAW), "module"),
    "compiled": (under("_orig_mod.", RAW), "_orig_mod"),
    "net": (under("net.", RAW), "net"),
    "nested prefixes": (under("module._orig_mod.net.model.", RAW), "module._orig_mod.net.model"),
    "a prefix of one's own": (under("my_unet.", RAW), "my_unet"),
    "state_dict": ({"state_dict": RAW, "best": 1.0}, "state_dict"),
    "model": ({"model": RAW, "optimizer": OPTIMIZER, "step": torch.tensor(5)}, "model"),
    "params": ({"params": under("module.", RAW)}, "params.module"),
    "two levels": ({"train": {"net": RAW}}, "train.net"),
    "lightning": (LIGHTNING, "state_dict.net"),
    "target only beside": ({"model": RAW, "target_model": EMA}, "model"),
    "teacher beside": ({**under("student.", RAW), **under("teacher.", EMA)}, "student"),
}


@pytest.mark.parametrize("kind", ONE)
def test_a_state_dict_is_found_wherever_it_is(kind, tmp_path, said):
    content, place = ONE[kind]
    assert is_equal(taken(saved(tmp_path, content)), RAW)
    lines = [record.getMessage() for record in said.records]
    assert len(lines) == bool(place)
    if place:
        assert f"mine.pt: took {place} ({len(RAW)} tensors)" in lines[0]


LISTED = [value for name, value in EMA.items()]
BOTH = {
    "ema": ({"model": RAW, "ema": EMA}, "ema", "model"),
    "model_ema": (
        {"model": under("module.", RAW), "model_ema": under("module.", EMA)},
        "model_ema.module",
        "model.module",
    ),
    "params_ema": ({"params": RAW, "params_ema": EMA}, "params_ema", "params"),
    "by prefixes": ({**under("net.", RAW), **under("net_ema.", EMA)}, "net_ema", "net"),
    "ema_pytorch": (
        {**under("online_model.", RAW), **under("ema_model.", EMA), "step": torch.tensor(1)},
        "ema_model",
        "online_model",
    ),
    "under the raw ones": ({**RAW, **under("ema.module.", EMA)}, "ema.module", ""),
    "swa": ({"state_dict": RAW, "averaged": {"module": EMA}}, "averaged.module", "state_dict"),
    "lightning": (
        {"state_dict": {**under("model.", RAW), **under("ema_model.", EMA)}},
        "state_dict.ema_model",
        "state_dict.model",
    ),
    "a list": (
        {"model": RAW, "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": LISTED}},
        "ema.shadow_params",
        "model",
    ),
    "a list beside": ({"model": under("module.", RAW), "ema_params": LISTED}, "ema_params", "model.module"),
    "without dots": (
        {
            "state_dict": {
                **under("model.diffusion_model.", RAW),
                **squeezed(EMA),
                "model_ema.decay": torch.tensor(0.9),
            }
        },
        "state_dict.model_ema.diffusion_model",
        "state_dict.model.diffusion_model",
    ),
    "two equal ones": ({"model": RAW, "ema": EMA, "ema2": dict(EMA)}, "ema", "model"),
}


@pytest.mark.parametrize("kind", BOTH)
def test_averaged_weights_come_first_and_the_others_can_be_named(kind, tmp_path, said):
    content, place, raw = BOTH[kind]
    file = saved(tmp_path, content)
    assert is_equal(taken(file), EMA)
    (line,) = [record.getMessage() for record in said.records]
    assert f"took {place}, the averaged weights ({len(RAW)} tensors); to take others: " in line
    assert (f"mine.pt#{raw}" if raw else "those without a prefix") in line
    assert is_equal(taken(file, place), EMA)
    if raw:
        assert is_equal(taken(file, raw), RAW)
        assert network_digest(Path(f"{file}#{raw}")) != network_digest(file)
    assert is_model(Path(f"{file}#{place}"))
    with pytest.raises(UserError, match=r"has no part 'nonsense': its parts are '"):
        taken(file, "nonsense")


def test_lists_that_do_not_fit_are_left_out_and_said(tmp_path, said):
    for wrong in (LISTED[:-1], LISTED[::-1]):
        tell_once.cache_clear()
        said.clear()
        file = saved(tmp_path, {"model": RAW, "ema": {"shadow_params": wrong}})
        assert is_equal(taken(file), RAW)
        (line,) = [record.getMessage() for record in said.records]
        assert "took model" in line
        assert "ema.shadow_params is a list of averaged parameters that does not fit its names" in line


def test_several_averages_are_a_choice_of_the_user(tmp_path):
    other = {name: value + 2 for name, value in RAW.items()}
    file = saved(tmp_path, {"model": RAW, "ema_0.999": EMA, "ema_0.9999": other})
    sentence = r"holds several state dicts \('ema_0.999', 'ema_0.9999'\): name one .*, as in .*pt#ema_0.9999"
    with pytest.raises(UserError, match=sentence):
        taken(file)
    assert is_equal(taken(file, "ema_0.9999"), other)


def test_a_file_whose_name_has_a_hash_sign_is_itself(tmp_path):
    file = tmp_path / "run#ema.pt"
    torch.save(RAW, file)
    assert split_part(file) == (file, "")
    assert is_equal(taken(file), RAW)
    assert split_part(tmp_path / "nothing.pt#ema") == (tmp_path / "nothing.pt#ema", "")


def test_edms_own_prefix_needs_no_word(tmp_path, said):
    theirs = Theirs("ddpm++").state
    torch.save(under("model.", theirs), tmp_path / "edm-cifar10-32x32-uncond-vp.pt")
    _, weights = read_model(tmp_path / "edm-cifar10-32x32-uncond-vp.pt")
    assert not said.records
    shadow = [value + 1 for name, value in theirs.items() if not name.endswith("resample_filter")]
    content = {"net": under("module.model.", theirs), "ema": {"shadow_params": shadow}}
    torch.save(content, tmp_path / "edm-cifar10-32x32-uncond-vp.pt")
    _, averaged = read_model(tmp_path / "edm-cifar10-32x32-uncond-vp.pt")
    assert averaged.keys() == weights.keys()
    assert all(torch.equal(averaged[name], weights[name] + 1) for name in weights), "buffers are not averaged"


def test_a_network_of_ones_own_is_found_by_its_own_names(tmp_path):
    spec = dataclasses.replace(SPEC, network=custom_network(TinyNetwork))
    state = TinyNetwork((1, 8, 8), 0).state_dict()
    file = saved(tmp_path, {"ema": under("module.", {n: x + 1 for n, x in state.items()}), "net": state})
    _, weights = read_model(file, spec)
    assert is_equal(weights, {name: value + 1 for name, value in state.items()})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "holds no tensors: give a state dict"),
        ({"a": {"b": [1, "x"]}}, "holds no tensors"),
        ([torch.ones(2), torch.ones(3)], "holds 2 tensors without names: give a state dict"),
        (
            nn.Linear(2, 2).state_dict(),
            "has no network that is known here: its tensors are called weight, bias; give",
        ),
        (
            {n: x for n, x in RAW.items() if n != "time_embed.0.weight"},
            "has names like those of OpenAI's U-Nets, but lacks time_embed.0.weight: give a complete one",
        ),
        (
            {n: x for n, x in Theirs("adm").state.items() if not n.startswith("map_layer")},
            "names like those of EDM's U-Nets, but lacks map_layer0.weight, map_layer1.weight",
        ),
        (
            {n: x for n, x in RAW.items() if n not in ("out.2.bias", "out.0.bias")},
            "it lacks out.0.bias, out.2.bias;",
        ),
        (
            {**RAW, **{f"more.{n}": torch.ones(1) for n in range(7)}},
            "belongs to another network: it has more.0, more.1, more.2 and 4 more;",
        ),
        ({**RAW, "out.2.bias": torch.ones(2)}, r"out.2.bias is \(2,\) there and \(1,\) here"),
        ({**RAW, "out.2.bias": torch.ones(1, dtype=torch.int8)}, "out.2.bias is int8 there and float32 here"),
        ({**RAW, "out.2.bias": torch.ones(1) * 1j}, "out.2.bias is complex64 there and float32 here"),
        (
            {**RAW, "out.2.bias": torch.tensor([float("inf")])},
            "out.2.bias of .*mine.pt has a value that is not finite",
        ),
        (
            {"model": RAW, "ema": {**EMA, "out.2.bias": torch.tensor([float("nan")])}},
            "out.2.bias of .* not finite",
        ),
    ],
)
def test_what_does_not_fit_is_named(content, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        load_model(saved(tmp_path, content), assumed=SPEC)


def test_names_of_diffusers_without_a_config_are_told(tmp_path):
    spec = SPECS["convolutions"]
    state = to_diffusers(spec, Model(spec).network.state_dict())
    with pytest.raises(UserError, match=r"has the names of diffusers, and no config.json is beside it"):
        read_model(saved(tmp_path, {"ema": state}), SPEC)
