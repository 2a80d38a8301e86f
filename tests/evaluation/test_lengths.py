"""Lengths of averages are scored on common noise, once, and the best is the run's model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import cm_ray as cm
from cm_ray.core.power_function import Profile
from cm_ray.data.load_images import load_images
from cm_ray.drawing.requests import sample_all
from cm_ray.errors import UserError
from cm_ray.evaluation.lengths import (
    LENGTHS_SEED,
    LengthScoring,
    best_length,
    check_images,
    length_request,
    reachable,
    read_lengths,
    scored_alike,
)
from cm_ray.evaluation.reference import reference_statistics
from cm_ray.evaluation.scorer import LocalScorer
from cm_ray.metrics.estimate import infinitesimal_jackknife
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import GROUPS, FrechetReference, frechet_distance, frechet_influence
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import SPEC, spec_from_dict
from cm_ray.runs.snapshots import KeptAverages
from cm_ray.storage.files import read_json
from tests.averaged import CHANGES, copied, train_averaged

CANDIDATES = CHANGES["averages.candidates"]


class Counting(LocalScorer):
    """Samples in this process, and counts the models that were sampled from."""

    def __init__(self, extractor, stop=None):
        super().__init__(torch.device("cpu"), extractor)
        vars(self).update(stop=stop, folders=[])

    def sampled(self, folder, request):
        if len(self.folders) == self.stop:
            raise KeyboardInterrupt
        self.folders.append(folder.name)
        return super().sampled(folder, request)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def extractor():
    return open_extractor("digits")


@pytest.fixture
def run(averaged_run, tmp_path):
    return copied(averaged_run, tmp_path / "run")


@pytest.fixture
def scoring(run, digits, extractor):
    """A measurement of 60 samples a length, of which the run has none."""
    recipe, spec = run.config(), spec_from_dict(read_json(run.model / SPEC))
    return LengthScoring(
        kept=KeptAverages.of(run, recipe, 24),
        spec=spec,
        scorer=Counting(extractor),
        data=digits,
        request=length_request(recipe, spec, digits, samples=60, seed=9),
        say=lambda text: None,
    )


def test_the_best_candidate_is_the_runs_model(averaged_run):
    scored = read_lengths(averaged_run)
    assert tuple(each.length for each in scored) == CANDIDATES
    assert {each.step for each in scored} == {24}
    assert {each.score.key["seed"] for each in scored} == {LENGTHS_SEED}
    assert {each.score.key["n"] for each in scored} == {80}
    assert [each.fit_error == 0 for each in scored] == [False, False, True, False]
    best = min(scored, key=lambda each: each.score.value).length
    result, spec = read_json(averaged_run.result_file), read_json(averaged_run.model / SPEC)
    assert result["average"] == {"kind": "power", "ema_length": best, "initial_share": 0.0}
    assert (spec["ema_length"], spec["initial_share"]) == (best, 0.0)
    weights = KeptAverages.of(averaged_run, averaged_run.config(), 24).weights(best)
    model = load_model(averaged_run.model)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.network.state_dict().items())
    assert not averaged_run.scoring_work.exists()
    assert (averaged_run.root / "averages.png").read_bytes().startswith(b"\x89PNG")
    table = (averaged_run.root / "averages.md").read_text()
    assert f"| **{best:g}** |" in table


def test_scores_are_frechet_distances_of_the_reconstructed_models(scoring, digits, extractor):
    """Values, errors and errors of differences, from features that are computed apart."""
    a, b = scoring.scores((0.05, 0.12))
    reference = reference_statistics(digits, extractor)
    against = FrechetReference.of(reference)
    values, influences = [], []
    run = cm.Run(scoring.kept.run.root, "cpu")
    for each in (a, b):
        images, _ = sample_all(run.average(each.length).torch_model, scoring.request)
        features = extractor.features(images)
        value, influence = frechet_influence(features, against)
        values.append(value)
        influences.append(influence)
        assert each.score.value == pytest.approx(value, rel=1e-9)
        assert each.score.error == pytest.approx(infinitesimal_jackknife(influence), rel=0.5)
        assert each.score.value == pytest.approx(
            frechet_distance(FeatureStatistics.of(features), reference), rel=1e-9
        )
        assert len(each.influence) == GROUPS
    apart, error = b.difference(a)
    assert apart == pytest.approx(values[1] - values[0])
    assert error == pytest.approx(infinitesimal_jackknife(influences[1] - influences[0]), rel=0.6)
    assert error < a.score.error, "the noise is common"


def test_what_was_scored_is_not_repeated(scoring, run, extractor):
    first = list(scoring.scores((0.05, 0.12)))
    again = Counting(extractor)
    assert list(replace(scoring, scorer=again).scores((0.12, 0.2, 0.05, 0.2))) == [
        first[1],
        read_lengths(run)[-1],
        first[0],
    ]
    assert again.folders == ["0.2"]
    other_noise = replace(scoring, request=replace(scoring.request, seed=10))
    again = Counting(extractor)
    list(replace(other_noise, scorer=again).scores((0.05,)))
    assert again.folders == ["0.05"]
    assert [each.length for each in scored_alike(run, first[0])] == [0.05, 0.12, 0.2]
    assert len(read_lengths(run)) == len(CANDIDATES) + 4


def test_an_interrupted_scoring_goes_on(scoring, run, extractor):
    with pytest.raises(KeyboardInterrupt):
        list(replace(scoring, scorer=Counting(extractor, stop=2)).scores((0.05, 0.12, 0.2)))
    again = Counting(extractor)
    found = list(replace(scoring, scorer=again).scores((0.05, 0.12, 0.2)))
    assert again.folders == ["0.2"]
    assert [each.length for each in found] == [0.05, 0.12, 0.2]


def test_other_snapshots_are_scored_again(scoring, run, extractor):
    """A snapshot that was removed changes what is reconstructed, and not what was tracked."""
    list(scoring.scores((0.05, 0.12)))
    (run.snapshots / "step-00000021.safetensors").unlink()
    fewer = replace(scoring, kept=KeptAverages.of(run, run.config(), 24))
    again = Counting(extractor)
    list(replace(fewer, scorer=again).scores((0.05, 0.12)))
    assert again.folders == ["0.12"]


def test_a_damaged_file_of_scores_is_named(scoring, run, extractor):
    for content in ("{", "[1]", '[{"length": 0.1}]'):
        run.averages_file.write_text(content)
        with pytest.raises(UserError, match=r"averages\.json is not (as cm_ray writes it|valid JSON)"):
            list(scoring.scores((0.05,)))


def test_lengths_that_cannot_be_made_are_refused_before_sampling(scoring, extractor):
    counting = Counting(extractor)
    for length, message in ((0.004, "cannot be made"), (0.3, "must be in"), (float("nan"), "must be in")):
        with pytest.raises(UserError, match=message):
            list(replace(scoring, scorer=counting).scores((0.05, length)))
    assert counting.folders == []
    assert reachable(scoring.kept, (0.004, 0.05, 0.2)) == (0.05, 0.2)


def test_images_of_another_shape_or_another_run_are_refused(run, scoring, digits):
    check_images(run, scoring.spec, digits, given=False)
    images = load_images(np.zeros((20, 8, 8, 1), np.uint8))
    with pytest.raises(UserError, match="was trained on other images than"):
        check_images(run, scoring.spec, images, given=False)
    check_images(run, scoring.spec, images, given=True)
    with pytest.raises(UserError, match=r"makes images \(1, 8, 8\)"):
        check_images(run, scoring.spec, load_images(np.zeros((20, 6, 6, 1), np.uint8)), given=True)


def test_without_an_extractor_the_first_length_is_exported(tmp_path, capsys):
    run = train_averaged(tmp_path / "run", steps=3, **{"evaluation.extractor": "none"})
    assert read_json(run.result_file)["average"]["ema_length"] == 0.05
    assert not run.averages_file.exists()
    kept = KeptAverages.of(run, run.config(), 3)
    assert kept.sources.keys() == {Profile(k, s) for k in (1, 2, 3) for s in (0.05, 0.1)}
    with pytest.raises(UserError, match="has no extractor to score averages by"):
        cm.load(run.root).averages()


def test_the_best_checkpoint_decides_the_step(tmp_path):
    """Lengths are made for the step that scored best while training, which need not be the last."""
    run = train_averaged(tmp_path / "run", steps=8, **{"checkpoint.every": 2, "evaluation.every": 4})
    best = read_json(run.checkpoints / "best.json")["step"]
    assert read_json(run.result_file)["model_step"] == best
    assert {each.step for each in read_lengths(run)} == {best}


def test_a_run_has_averages_of_any_length(averaged_run, run):
    """Models of single lengths in Python, and their scores; tracked ones are those of the checkpoint."""
    loaded = cm.load(averaged_run.root)
    state = torch.nn.Module.state_dict(loaded.average(0.1).torch_model.network)
    kept = KeptAverages.of(averaged_run, averaged_run.config(), 24).weights(0.1)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    assert loaded.average(0.08).spec.ema_length == 0.08
    earlier = loaded.average(0.1, step=18)
    assert not torch.equal(earlier.torch_model.network.state_dict()["out.2.weight"], state["out.2.weight"])
    with pytest.raises(UserError, match="has kept no averages of step 5"):
        loaded.average(0.1, step=5)
    scored = cm.load(run.root).averages((0.05, 0.12), samples=40)
    assert [each.length for each in scored] == [0.05, 0.12]
    assert scored.best == best_length(scored)
    assert repr(scored).startswith("Averages of step 24, 40 samples by `one-step` with seed 4:")
    assert json.loads(run.averages_file.read_text())[-1]["length"] == 0.12
