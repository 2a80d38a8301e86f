"""Likelihoods on a cluster: the numbers of one process, the files, and work that goes on after a kill."""

import csv
import json

import numpy as np
import pytest
import torch

from cm_ray.cluster.evaluation import likelihood as module
from cm_ray.cluster.evaluation.likelihood import measure_likelihood
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.command_line.settings.likelihood import LikelihoodSettings
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.ode import Tolerance
from cm_ray.errors import UserError
from cm_ray.evaluation.likelihood import LikelihoodRequest, likelihoods
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.sampling.samplers import Heun
from tests.cluster.tiny import make_tiny_run, save_tiny

DENOISER = Diffusion(boundary="none", t_min=0.05, t_max=5.0)
COARSE = Tolerance(rtol=0.05, atol=0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of a tiny diffusion model on 14 images of two classes, in a folder."""
    root = tmp_path_factory.mktemp("likelihood")
    drawn = np.random.default_rng(0)
    np.savez(
        root / "images.npz",
        images=drawn.integers(0, 256, (14, 8, 8, 1), dtype=np.uint8),
        labels=drawn.integers(0, 2, 14),
    )
    return make_tiny_run(root / "tiny", data=str(root / "images.npz"), diffusion=DENOISER, sampler=Heun())


def settings(run, tmp_path, **changes):
    given = {"rtol": COARSE.rtol, "atol": COARSE.atol, "batch_size": 4, "run_dir": str(tmp_path / "out")}
    actors = ActorSettings(count=2)
    return LikelihoodSettings(model=str(run.root), actors=actors, tracking_uri="none", **(given | changes))


def table(tmp_path):
    with (tmp_path / "out" / "likelihood.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_cluster_finds_what_one_process_finds(ray_cluster, run, tmp_path):
    result = measure_likelihood(settings(run, tmp_path))
    arrays = np.load(run.root.parent / "images.npz")
    pixels = torch.from_numpy(arrays["images"].transpose(0, 3, 1, 2).copy())
    request = LikelihoodRequest(tolerance=COARSE, batch=14)
    places = torch.arange(14)
    here = likelihoods(load_model(run.model), pixels, torch.full((14,), -1), places, request)
    rows = table(tmp_path)
    assert [int(row["image"]) for row in rows] == list(range(14))
    np.testing.assert_allclose([float(row["bits_per_dim"]) for row in rows], here.bits, atol=0.02)
    assert np.ptp(here.bits) > 0.1, "images must differ"
    (kept,) = json.loads((tmp_path / "out" / "likelihood.json").read_text())
    assert kept["value"] == pytest.approx(here.mean[0], abs=0.02)
    assert kept["key"]["n"] == 14
    assert kept["key"]["trace"] == "hutchinson:1"
    assert result.row == kept
    assert (tmp_path / "out" / "samples" / "extremes.png").is_file()
    assert not (tmp_path / "out" / "likelihood-work").exists()


def test_finished_parts_are_not_computed_again(ray_cluster, run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART", 4)
    asked = []
    real = SamplerPool.likelihoods

    def stopped(self, model, seen, manifest, rows, request, progress=None):
        asked.append(len(rows))
        for count, found in enumerate(real(self, model, seen, manifest, rows, request, progress), 1):
            yield found
            if count == 1 and len(asked) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(SamplerPool, "likelihoods", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure_likelihood(settings(run, tmp_path, images=7))
    first = measure_likelihood(settings(run, tmp_path, images=7))
    assert asked == [2, 1]
    again = measure_likelihood(settings(run, tmp_path, images=7, run_dir=str(tmp_path / "whole")))
    assert first.row == again.row
    assert table(tmp_path) == table_of(tmp_path / "whole")
    assert len(table(tmp_path)) == 7


def table_of(folder):
    with (folder / "likelihood.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_cannot_be_is_refused_before_ray_starts(run, tmp_path):
    consistency = save_tiny(tmp_path / "cm")
    with pytest.raises(UserError, match=r"is a consistency model"):
        measure_likelihood(LikelihoodSettings(model=str(consistency), data="digits"))
    alone = save_tiny(tmp_path / "alone", diffusion=DENOISER, sampler=Heun())
    with pytest.raises(UserError, match=r"The images are not given; set data"):
        measure_likelihood(LikelihoodSettings(model=str(alone)))
    with pytest.raises(UserError, match=r"--probes must be at least 0"):
        settings(run, tmp_path, probes=-1)
    with pytest.raises(UserError, match=r"belongs to a training run"):
        measure_likelihood(settings(run, tmp_path, run_dir=str(run.root)))
