"""Too little memory is told by the part of the work that it is too little for, with the setting to change."""

import pytest
import torch

import cm_ray as cm
from cm_ray.command_line import main
from cm_ray.data.load_images import load_images
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.editing import files as editing_files
from cm_ray.errors import UserError, spoken
from cm_ray.metrics.extractors.extractor import features_of, statistics_of
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.formats.reading import load_model
from cm_ray.sampling.samplers import OneStep
from tests.hungry import HungryExtractor, eat
from tests.training.engines import engine, run, small


def test_a_training_step(monkeypatch):
    made = engine(small())
    monkeypatch.setattr(made, "replica", eat)
    with pytest.raises(UserError) as told:
        run(made, 1)
    rows = made.config.batch_size
    assert spoken(str(told.value)) == (
        f"Steps on {rows} images at a time need more memory than there is; raise accumulate, or set "
        "network.gradient_checkpointing."
    )


def test_samples(averaged_run):
    model = load_model(averaged_run.model)
    model.network.forward = eat
    with pytest.raises(UserError, match=r"^12 samples at a time need more memory than there is; lower "):
        sample_all(model, Request(count=12, seed=0, sampler=OneStep()))


@pytest.mark.parametrize("extract", [features_of, statistics_of])
def test_features(extract):
    images = torch.zeros(7, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match="features of 7 images at a time need more memory"):
        extract(HungryExtractor(), images)


def test_scores_of_images():
    with pytest.raises(UserError, match=r"features of .* need more memory"):
        cm.score(load_images("digits").images[:100], "digits", extractor=HungryExtractor())


def test_edits(averaged_run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(editing_files, "edited", eat)
    picture = tmp_path / "a.png"
    cm.load(averaged_run.root).sample(1, seed=0).save(picture)
    words = ["edit", "upscale", "--model", averaged_run.root, "--image", picture, "--resize"]
    assert main.run([*map(str, words), "--out", f"{tmp_path}/edits"]) == 2
    said = capsys.readouterr().err
    assert "Edits in batches of 1 need more memory than there is; lower --batch-size" in said


def test_weights_that_do_not_fit(monkeypatch, tmp_path):
    monkeypatch.setattr("cm_ray.training.trainer.Engine", eat)
    with pytest.raises(UserError, match=r"The networks of .* averages .* need more memory"):
        cm.train("ict_digits", out=tmp_path / "run", steps=2, quiet=True)


@pytest.mark.parametrize(
    ("batch_size", "workers", "accumulate", "at_once"), [(64, 2, 4, 8), (999, 1, 1, 256)]
)
def test_samples_of_a_training_come_in_its_micro_batches(batch_size, workers, accumulate, at_once):
    changes = {"batch_size": batch_size, "cluster.num_workers": workers, "accumulate": accumulate}
    assert cm.override(cm.recipes.ict_digits(), changes).sampled_at_once == at_once


def test_the_unit_does_not_change_the_samples(averaged_run):
    model, extractor = load_model(averaged_run.model), open_extractor("digits")
    requests = [Request(count=20, seed=1, sampler=OneStep(), unit=unit) for unit in (3, 20)]
    one, other = (sample_all(model, request)[0] for request in requests)
    assert (one.int() - other.int()).abs().max() <= 1
    assert torch.allclose(extractor.features(one), extractor.features(other), atol=1e-2)
