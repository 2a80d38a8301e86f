"""The cluster's interface for Python: the same as on the command line, from a notebook."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import cm_ray as cm
from cm_ray.cluster.sweeps import run_sweep
from cm_ray.sweeps.space import Categorical, Space
from tests.api.conftest import TINY
from tests.cluster.pretending import pretended_trial
from tests.networks.custom_networks import TinyNetwork

CHANGES = {**TINY, "steps": 4}


@pytest.fixture
def digits():
    found = load_digits()
    images = (found.images[:300] * 255 / 16).round().astype(np.uint8)
    return torch.from_numpy(images)[:, None], torch.from_numpy(found.target[:300])


@pytest.mark.usefixtures("ray_cluster")
def test_training_on_the_cluster_is_training_here(digits, tmp_path, capsys):
    """Images in memory go through shards, Ray Data and Ray Train: the same weights to rounding."""
    changes = {**CHANGES, "cluster.cpus_per_worker": 0.5, "cluster.threads": 1}
    there = cm.cluster.train("ict_digits", data=digits, out=tmp_path / "there", changes=changes)
    said = capsys.readouterr().err
    phases = ["reading the data set", "starting 1 worker; the first step follows", "step 1/4  loss"]
    assert said.index(phases[0]) < said.index(phases[1]) < said.index(phases[2]), said
    here = cm.train("ict_digits", data=digits, out=tmp_path / "here", changes=changes, quiet=True)
    assert there.directory.lineage_file.is_file()
    assert [row["step"] for row in there.log if "loss" in row] == [1, 2, 3, 4]
    one, other = there.torch_model.state_dict(), here.torch_model.state_dict()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_a_data_set_of_ray_and_a_network_of_ones_own(ray_cluster, trains_here, digits, tmp_path):
    images, labels = digits
    rows = [
        {"image": image.numpy(), "label": int(label)}
        for image, label in zip(images[:, 0], labels, strict=True)
    ]
    data = ray_cluster.data.from_items(rows)
    recipe = cm.override(
        cm.recipes.ict_digits(),
        {
            **{name: value for name, value in CHANGES.items() if not name.startswith("network.")},
            "network": cm.Custom(path=f"{TinyNetwork.__module__}:TinyNetwork"),
            "cluster.cpus_per_worker": 0.5,
        },
    )
    run = cm.cluster.train(recipe, data=data, out=tmp_path / "run", steps=2)
    assert type(run.torch_model.network).__name__ == "TinyNetwork"
    assert run.sample(2, seed=0).shape == (2, 8, 8, 1)


@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_over_a_space_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(run_sweep, "run_trial", pretended_trial)
    space = Space(
        question="Which distance?",
        base=cm.override(cm.recipes.ict_digits(), {**CHANGES, "evaluation.samplers": ("one-step",)}),
        space={"distance": Categorical(["pseudo-huber", "l2"])},
        sampler="grid",
    )
    done = cm.cluster.sweep(space, out=tmp_path / "swept", tracking_uri="none", scheduler="none")
    report = (done.root / "report.md").read_text()
    assert "Which distance?" in report
    assert "pseudo-huber" in report
