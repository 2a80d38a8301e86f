"""Weights that are not finite are refused by name, at whatever door a model comes in."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import cm_ray as cm
from cm_ray.command_line.main import run as command
from cm_ray.errors import UserError
from cm_ray.networks.formats.exporting import write_safetensors
from cm_ray.networks.formats.reading import load_model
from tests.api.conftest import TINY

NAME = "time_embed.0.weight"
SENTENCE = f"{NAME} of {{}} has 3 values that are not finite; restore it, or download it again."


def spoil(file, name=NAME):
    """Make three values of a tensor in a file not finite."""
    state = load_file(file)
    state[name].flatten()[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    save_file(state, file)
    return file


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A model's folder."""
    return run.save(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def spoilt(whole, tmp_path):
    """A copy of the folder with three values that are not finite."""
    shutil.copytree(whole, tmp_path / "m")
    spoil(tmp_path / "m" / "weights.safetensors")
    return tmp_path / "m"


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


COMMANDS = {
    "sample": ["sample", "MODEL", "--out", "OUT/x"],
    "score": ["score", "MODEL", "--data", "digits", "--extractor", "digits", "--run-dir", "OUT/run"],
    "time points": [
        "time-points",
        "MODEL",
        "--data",
        "digits",
        "--extractor",
        "digits",
        "--run-dir",
        "OUT/run",
    ],
    "export": ["export", "MODEL", "--format", "safetensors", "--out", "OUT/x"],
    "edit": ["edit", "stroke", "--model", "MODEL", "--image", "PHOTO", "--out", "OUT/edits"],
    "interpolate": ["edit", "interpolate", "--model", "MODEL", "--label", "1", "--out", "OUT/edits"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_by_name_and_write_nothing(name, spoilt, photo, tmp_path, capsys):
    places = {"MODEL": str(spoilt), "PHOTO": str(photo), "OUT": str(tmp_path / "out")}
    words = COMMANDS[name]
    for word, place in places.items():
        words = [each.replace(word, place) for each in words]
    assert command(words) == 2
    assert capsys.readouterr().err == f"error: {SENTENCE.format(spoilt / 'weights.safetensors')}\n"
    left = {path.name for path in (tmp_path / "out").rglob("*")} if (tmp_path / "out").exists() else set()
    assert left <= {".lock", "run"}


def exported(spoilt):
    """The spoilt model as one file, as a state dict, and as directories of diffusers with it."""
    model = load_model(spoilt, check=False)
    file = spoilt.parent / "one.safetensors"
    write_safetensors(file, model)
    yield file
    torch.save(
        {"ema": {f"module.{n}": x for n, x in model.network.state_dict().items()}},
        spoilt.parent / "edm_imagenet64.pt",
    )
    yield spoilt.parent / "edm_imagenet64.pt"


def test_every_kind_of_file_is_refused(spoilt):
    for file in exported(spoilt):
        with pytest.raises(UserError, match=rf"{NAME} of {file} has 3 values that are not finite"):
            cm.load(file)


@pytest.mark.parametrize(
    ("recipe", "setting"), [("cd_digits", "teacher.model"), ("ct_digits", "init_from.model")]
)
def test_a_training_does_not_begin_with_them(recipe, setting, spoilt, tmp_path):
    out = tmp_path / "run"
    changes = TINY | {setting: str(spoilt)}
    with pytest.raises(UserError, match=f"{NAME} of .* has 3 values that are not finite"):
        cm.train(recipe, out=out, steps=4, changes=changes, quiet=True)
    assert not (out / "config.json").exists()


def test_a_run_does_not_go_on_with_a_spoilt_copy_of_its_beginning(whole, tmp_path, digits):
    """The copy of the initial model in the run directory is checked again by every start."""
    out, changes = tmp_path / "run", TINY | {"init_from.model": str(whole)}

    def stopped(step):
        return step.number < 2

    trainer = cm.Trainer(recipe(changes), digits, out=out, callbacks=[stopped], quiet=True)
    trainer.train()
    spoil(out / "initial" / "weights.safetensors")
    with pytest.raises(UserError, match=f"{NAME} of {out}/initial/weights.safetensors has 3 values"):
        cm.Trainer(recipe(changes), digits, out=out, quiet=True).train()


def recipe(changes):
    from cm_ray.settings.tree import override

    return override(cm.recipes.ict_digits(), {**changes, "steps": 4})


@pytest.mark.parametrize("group", ["student", "ema0", "optimizer"])
def test_a_run_does_not_resume_from_a_spoilt_checkpoint(group, run, tmp_path, digits):
    out = tmp_path / "run"
    shutil.copytree(run.directory.root, out)
    for name in ("result.json", "model", "samples"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    last = sorted((out / "checkpoints").glob("step-*"))[-1]
    shutil.rmtree(last)
    state = sorted((out / "checkpoints").glob("step-*"))[-1] / "state.safetensors"
    name = next(
        key for key in sorted(load_file(state)) if key.startswith(group) and load_file(state)[key].numel() > 3
    )
    spoil(state, name)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    with pytest.raises(UserError) as refused:
        cm.train("ict_digits", out=out, steps=4, changes=TINY, quiet=True)
    sentence = f"{name} of {state} has 3 values that are not finite"
    assert sentence in str(refused.value)
    assert "remove it to resume from an earlier one" in str(refused.value)
    assert [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] == rows, (
        "the log is left"
    )
    shutil.rmtree(state.parent)
    assert cm.train("ict_digits", out=out, steps=4, changes=TINY, quiet=True).result["steps"] == 4


def test_a_state_that_is_not_finite_is_not_written(tmp_path):
    from cm_ray.runs.checkpoint import Checkpoint, CheckpointStore

    store = CheckpointStore(tmp_path, keep=2)
    store.save(Checkpoint(1, {"optimizer/0/exp_avg": torch.ones(3)}))
    store.save(Checkpoint(2, {"optimizer/0/exp_avg": torch.tensor([1.0, float("inf")])}))
    sentence = (
        r"optimizer/0/exp_avg of the state after step 2 has a value that is not finite; the last good "
        r"checkpoint is kept: train again with a lower optimizer.learning_rate"
    )
    with pytest.raises(UserError, match=sentence):
        store.wait()
    assert store.steps() == [1]
    store.close()
