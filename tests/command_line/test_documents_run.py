"""The documents are run, in a short form: every command and snippet without a reason against it."""

import contextlib
import importlib
import itertools
import os
import shlex
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray.command_line import main
from cm_ray.command_line.training import parse_training
from cm_ray.training.noise_classifier import ClassifierTraining
from tests.api.conftest import TINY
from tests.cluster.tiny import save_tiny
from tests.docs.documents import snippets
from tests.docs.short_forms import HERE, ON_RAY, ONLY_CHECKED, SNIPPETS

SMALL = {
    **TINY,
    "steps": 2,
    "batch_size": 4,
    "checkpoint.every": 2,
    "evaluation.every": 0,
    "evaluation.samples": 20,
}
SMALL_CIFAR = {
    **{name: value for name, value in SMALL.items() if name != "network.head_channels"},
    "network.channel_mult": (1,),
    "evaluation.extractor": "none",
}
OWN_NETWORKS = """
from torch import nn
from torch.nn.functional import avg_pool2d

class Means:
    name, dim, weights_sha256, preprocess = "means", 48, "ab" * 32, "none"

    def __init__(self, device):
        pass

    def features(self, images):
        return avg_pool2d(images.float(), 8).flatten(1)

class MyNetwork(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layer = nn.Conv2d(shape[0], shape[0], 3, padding=1)

    def forward(self, x, time, labels=None):
        return self.layer(x) + 0 * time[:, None, None, None]
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the runs and images that documents speak of."""
    folder = tmp_path_factory.mktemp("prepared")
    for recipe in ("ict_digits", "edm_digits", "trigflow_digits", "meanflow_digits", "vp_digits"):
        changes = {**SMALL, "evaluation.samplers": ("own",)}
        cm.train(recipe, out=folder / "runs" / recipe, changes=changes, quiet=True)
    more = {"dropped": ("edm_digits", {"network.label_dropout": 0.1})}
    more["cd_drawn"] = ("cd_digits", {"teacher.model": str(folder / "runs" / "dropped"), "guidance": "drawn"})
    for name, (recipe, changes) in more.items():
        changes |= {**SMALL, "evaluation.samplers": ("own",)}
        cm.train(recipe, out=folder / "runs" / name, changes=changes, quiet=True)
    short = ClassifierTraining(steps=2, batch_size=4)
    edm, made = folder / "runs" / "edm_digits", folder / "runs" / "digits_classifier"
    cm.train_classifier(edm, "digits", made, channels=8, training=short)
    for name in ("demo", "digits"):
        shutil.copytree(folder / "runs" / "ict_digits", folder / "runs" / name)
    save_tiny(folder / "runs" / "photos" / "model", shape=(3, 32, 32), class_names=())
    drawn = np.random.default_rng(0)
    for name, size in {"digit": 8, "3": 8, "mask": 8, "strokes": 8, "noisy": 8, "small": 4}.items():
        _picture(drawn, folder / f"{name}.png", (size, size))
    for name in ("a", "b"):
        _picture(drawn, folder / f"{name}.png", (32, 32, 3))
    for name, number in itertools.product(("photos", "pictures", "split/train", "split/test"), range(12)):
        _picture(drawn, folder / name / f"{number}.png", (32, 32, 3))
    np.savez(folder / "my_samples.npz", drawn.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8))
    (folder / "my_project").mkdir()
    (folder / "my_project" / "networks.py").write_text(OWN_NETWORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        own = importlib.import_module("my_project.networks").MyNetwork
        cm.train("ict_digits", network=own, out=folder / "runs" / "own", changes=SMALL, quiet=True)
    forget_own_code()
    return folder


def forget_own_code():
    """Let the networks of documents be imported from where the next test has them."""
    for name in [name for name in sys.modules if name.startswith("my_project")]:
        del sys.modules[name]


def _picture(drawn, path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn.integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    """A copy of that folder, in which commands are run."""
    shutil.copytree(prepared, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    monkeypatch.setattr(sys, "argv", ["cm-ray"])
    monkeypatch.delenv("CM_RAY_RUNS", raising=False)
    yield tmp_path / "place"
    forget_own_code()


@pytest.mark.parametrize("text", HERE)
def test_commands_do_what_they_say(text, place):
    run(HERE[text].of(text))
    assert_made(HERE[text], place)


@pytest.mark.parametrize("text", ON_RAY)
def test_commands_do_what_they_say_on_ray(text, place, ray_cluster):
    words = shlex.split(ON_RAY[text].of(text))
    assert main.run(words[1:]) == 0
    assert_made(ON_RAY[text], place)


def run(text):
    """Run a command of cm-ray in this process; a training by the trainer, which needs no Ray."""
    program, *words = shlex.split(text)
    assert program == "cm-ray"
    if words[0] == "train" and "--help" not in words:
        cm.Trainer(parse_training(words[1:]), quiet=True).train()
    else:
        with contextlib.suppress(SystemExit):  # of --help
            assert main.run(words) == 0


def assert_made(short, place):
    missing = [name for name in short.makes.split() if not (place / name).exists()]
    assert missing == [], sorted(os.listdir(place))


@pytest.mark.parametrize("snippet", snippets(), ids=str)
def test_snippets_do_what_they_say(snippet, place):
    beginning = next((each for each in SNIPPETS if snippet.text.startswith(each)), None)
    if beginning is None:
        pytest.skip(next(why for each, why in ONLY_CHECKED.items() if snippet.text.startswith(each)))
    exec(compile(SNIPPETS[beginning].of(snippet.text), str(snippet), "exec"), names())
    assert_made(SNIPPETS[beginning], place)


def names():
    """Return the names that snippets take as given."""
    from my_project.networks import MyNetwork

    network, x = MyNetwork((3, 32, 32), 0), torch.zeros(2, 3, 32, 32)
    return {
        "cm": cm,
        "SMALL": SMALL,
        "SMALL_CIFAR": SMALL_CIFAR,
        "recipe": cm.override(cm.recipes.ict_digits(), {**SMALL, "evaluation.extractor": "none"}),
        "model": cm.load("runs/photos"),
        "network": network,
        "teacher_network": MyNetwork((3, 32, 32), 0),
        "batches": itertools.repeat(x),
        "x": x,
        "k": 3,
        "labels": None,
    }
