"""Statistics that other programs publish stand for the images, where a score needs no more."""

import numpy as np
import pytest
import torch

import cm_ray as cm
from cm_ray.command_line import main
from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from cm_ray.evaluation.statistics_file import StatisticsFile, is_statistics_file
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.storage.files import sha256_of


@pytest.fixture(scope="module")
def statistics():
    """Those of all digits."""
    return FeatureStatistics.of(open_extractor("digits").features(load_images("digits").images))


@pytest.fixture
def file(statistics, tmp_path):
    np.savez(tmp_path / "digits-stats.npz", mu=statistics.mean(), sigma=statistics.covariance())
    return tmp_path / "digits-stats.npz"


@pytest.fixture
def images():
    chosen = torch.randperm(1797, generator=torch.Generator().manual_seed(0))[:700]
    return load_images("digits").images[chosen]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_score_is_that_of_the_images(dtype, statistics, images, tmp_path):
    file = tmp_path / "stats.npz"
    np.savez(file, mu=statistics.mean().astype(dtype), sigma=statistics.covariance().astype(dtype))
    ours = cm.score(images, file, kinds=("FD", "FDinf"), extractor="digits")
    theirs = cm.score(images, "digits", kinds=("FD", "FDinf"), extractor="digits")
    for kind in ("FD", "FDinf"):
        assert ours[kind].value == pytest.approx(
            theirs[kind].value, rel=1e-4 if dtype == np.float32 else 1e-8
        )
        assert ours[kind].key["reference"] == sha256_of(file)
        assert ours[kind].key | {"reference": ""} == theirs[kind].key | {"reference": ""}


def test_a_model_is_scored_with_its_own_labels(averaged_run, file):
    run = cm.load(averaged_run.root)
    found = cm.score(run, file, n=60, extractor="digits")["FD"]
    assert found.key["labels"] == "balanced"
    assert found.key["n"] == 60
    unknown = StatisticsFile(file)
    assert (unknown.count, unknown.class_names, unknown.source) == (0, (), "digits-stats")


@pytest.mark.parametrize("kind", ["KID", "SWD", "precision", "recall"])
def test_single_images_are_not_there(kind, file, images):
    with pytest.raises(UserError, match=f"{kind} compares with single images, and .*statistics"):
        cm.score(images, file, kinds=kind, extractor="digits")


def test_another_extractor_is_refused(file, images, tmp_path):
    np.savez(tmp_path / "inception.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(UserError, match="statistics of 2048 features, and digits has 64"):
        cm.score(images, tmp_path / "inception.npz", extractor="digits")


BAD = {
    "no covariance": ({"mu": np.zeros(64), "sigma": np.eye(63)}, "no covariance of 64 features"),
    "not symmetric": ({"mu": np.zeros(64), "sigma": np.triu(np.ones((64, 64)))}, "no covariance"),
    "not finite": ({"mu": np.full(64, np.nan), "sigma": np.eye(64)}, "mu of .* is not finite"),
    "integers": ({"mu": np.zeros(64, int), "sigma": np.eye(64)}, "int64 .*not floating-point"),
    "pickled": ({"mu": np.array([None] * 64), "sigma": np.eye(64)}, "pickled Python objects"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mean_and_covariance_is_refused(name, images, tmp_path):
    arrays, sentence = BAD[name]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=sentence):
        cm.score(images, tmp_path / "bad.npz", extractor="digits")


def test_images_with_statistics_beside_them_are_images(tmp_path, file):
    """OpenAI's reference batches have both."""
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "both.npz", pixels, mu=np.zeros(64), sigma=np.eye(64))
    assert not is_statistics_file(tmp_path / "both.npz")
    assert is_statistics_file(file)
    assert not is_statistics_file(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("no archive")
    assert not is_statistics_file(tmp_path / "text.npz")


def test_a_dry_run_says_what_they_are(file, averaged_run, capsys):
    assert main.run(["score", str(averaged_run.root), "--data", str(file), "--dry-run"]) == 0
    assert "digits-stats: mean and covariance of 64 features, without images" in capsys.readouterr().out
