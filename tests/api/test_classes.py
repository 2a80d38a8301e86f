"""Classes without images are neither sampled nor scored; others are asked for by their names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cm_ray as cm
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.conclusion import summary
from cm_ray.storage.files import read_json
from tests.api.conftest import TINY

UNEQUAL = dict(zip((1, 2, 4), (60, 30, 10), strict=True))
"""Images by label: 0 and 3 have none."""


def grid_file(run):
    """Return the first grid of a finished run."""
    return run.directory.root / run.result["paths"]["samples"][0]


@pytest.fixture(scope="module")
def unequal(digits):
    labels = np.concatenate([np.full(count, label) for label, count in UNEQUAL.items()])
    return digits[0][: len(labels)], labels


@pytest.fixture(scope="module")
def of_some(unequal, tmp_path_factory):
    """A run on the images, and the labels of the samples that it scored while training and at its end."""
    out, seen = tmp_path_factory.mktemp("runs") / "run", {}
    labels_of = Request.labels_of

    def watched(request, model, indices):
        labels = labels_of(request, model, indices)
        of_seed = seen.setdefault(request.seed, {})
        of_seed.update(zip(indices.tolist(), labels.tolist(), strict=True))
        return labels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Request, "labels_of", watched)
        run = cm.train("ict_digits", unequal, out=out, steps=4, changes=TINY, quiet=True)
    return run, [[labels[index] for index in range(len(labels))] for labels in seen.values()]


def test_the_counts_travel_with_the_model(of_some, unequal):
    run, _ = of_some
    spec = json.loads((run.directory.model / "model.json").read_text())
    assert spec["class_names"] == ["0", "1", "2", "3", "4"]
    assert spec["class_counts"] == [0, 60, 30, 0, 10]
    again = cm.load(run.save(run.directory.root.parent / "copy"))
    assert again.spec.class_counts == (0, 60, 30, 0, 10)


def test_samples_are_of_the_classes_that_were_trained_equally_often(of_some):
    labels = of_some[0].sample(300, seed=0).labels
    assert np.bincount(labels, minlength=5) / 300 == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3], abs=0.1)
    labels = of_some[0].sample(300, seed=0, label="data").labels
    assert np.bincount(labels, minlength=5) / 300 == pytest.approx([0, 0.6, 0.3, 0, 0.1], abs=0.1)
    assert set(of_some[0].sample(50, seed=0, label=["1", "4"]).labels) == {1, 4}


def test_scores_are_of_samples_with_the_shares_of_the_data(of_some):
    run, scored = of_some
    assert {score.key["labels"] for score in run.scores} == {"data"}
    assert len(scored) == 2, "while training and at its end"
    for labels in scored:
        assert len(labels) == TINY["evaluation.samples"]
        shares = np.bincount(labels, minlength=5) / len(labels)
        assert shares == pytest.approx([0, 0.6, 0.3, 0, 0.1], abs=0.15)
    npz = np.load(grid_file(run).with_suffix(".npz"))
    assert len(npz["arr_1"]) == len(npz["arr_0"]) == 9, "those of the grid"
    assert npz["arr_1"].tolist() == scored[-1][:9]


def test_grids_results_and_the_terminal_say_the_names(of_some):
    run, scored = of_some
    final = str(grid_file(run))
    for grid in (run.directory.samples / "step-00000004.png", final):
        legend = Path(str(grid).replace(".png", ".classes.txt")).read_text().splitlines()
        said = [name for row in legend for name in row.split(": ")[1].split(", ")]
        assert len(said) == 9
        assert set(said) <= {"1", "2", "4"}
    assert said == [str(label) for label in scored[-1][:9]], "the grid's are the first that are scored"
    shares = run.result["class_shares"]
    assert list(shares) == list("0123456789")
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    rarest = min(shares, key=shares.get)
    assert f"share of the rarest class, {rarest}: {shares[rarest]:.1%}" in summary(run.directory)


def test_scores_against_other_data_have_its_shares(of_some, unequal, tmp_path):
    images, labels = unequal
    others = images[labels != 1], labels[labels != 1]
    keys = {"extractor": "digits", "n": 100}
    model = cm.load(of_some[0].save(tmp_path / "model"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.torch_model.parameters():  # samples of two classes shall differ
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    data = cm.score(model, others, **keys)["FD"]
    balanced = cm.score(model, others, labels="balanced", **keys)["FD"]
    one = cm.score(model, others, labels="2", **keys)["FD"]
    assert [score.key["labels"] for score in (data, balanced, one)] == ["data", "balanced", "2"]
    draws = [model.sample(100, seed=1, label=label) for label in (None, "2")]
    for score, samples in zip((balanced, one), draws, strict=True):
        direct = cm.score(samples, others, extractor="digits")["FD"]
        assert score.value == pytest.approx(direct.value, rel=1e-6)
    assert data.value != balanced.value


def test_classes_that_were_never_trained_are_refused(of_some, unequal):
    run, (images, labels) = of_some[0], unequal
    with pytest.raises(cm.UserError, match=r"on no image of the class '3'; .* \(1, 2, 4\), or set untrained"):
        run.sample(1, label="3")
    assert run.sample(2, label="3", untrained=True).labels.tolist() == [3, 3]
    with pytest.raises(cm.UserError, match="on no image of the class '0'"):
        run.denoise(images[0], 0.5, label=0)
    with pytest.raises(cm.UserError, match="has images of the class '3', of which the model has seen none"):
        cm.score(run, (images, np.where(labels == 1, 3, labels)), extractor="digits", n=50)


def test_a_setting_of_the_recipe_names_the_labels(unequal, tmp_path):
    changes = {**TINY, "evaluation.labels": "2,4", "evaluation.every": 0}
    run = cm.train("ict_digits", unequal, out=tmp_path / "run", steps=2, changes=changes, quiet=True)
    assert {score.key["labels"] for score in run.scores} == {"2,4"}
    grid = np.load(grid_file(run).with_suffix(".npz"))
    assert set(grid["arr_1"]) == {2, 4}
    assert read_json(run.directory.result_file)["scores"][0]["key"]["labels"] == "2,4"
    with pytest.raises(cm.UserError, match="no class '9'"):
        cm.train(
            "ict_digits",
            unequal,
            out=tmp_path / "other",
            steps=2,
            changes=changes | {"evaluation.labels": "9"},
            quiet=True,
        )
    assert not (tmp_path / "other" / "config.json").exists()
