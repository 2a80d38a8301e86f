"""Shards in the cache: they belong to the images, not to names and times, and are looked for once."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cm_ray.cluster.training import prepare
from cm_ray.cluster.training.prepare import PreparedData, prepare_shards
from cm_ray.data.layouts import identity
from cm_ray.data.shards.manifest import load_all
from cm_ray.recipes.sections import DataSettings

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def save(folder, level):
    """Write two images of one grey level, equal in names, sizes and times for every level."""
    for index in range(2):
        file = folder / "cat" / f"{index}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(file)
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return DataSettings(path=str(folder))


def test_folders_that_look_alike_have_shards_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    found = {}
    for parent, level in (("a", 3), ("b", 9), ("c", 3)):
        folder, manifest = prepare_shards(save(tmp_path / parent / "samples", level))
        assert np.unique(load_all(folder)[0]).tolist() == [level]
        found[parent] = folder, manifest.fingerprint
    assert found["a"][0] != found["b"][0]
    assert found["a"][1] != found["b"][1]
    assert found["a"] == found["c"]


def test_a_second_command_reads_no_image(tmp_path, monkeypatch):
    data = save(tmp_path / "samples", 3)
    before = prepare_shards(data)
    monkeypatch.setattr(identity, "_content", None)
    assert prepare_shards(data) == before
    assert prepare_shards(replace(data, on_bad_image="skip"))[0] != before[0]


def test_data_that_is_prepared_is_not_looked_at(tmp_path, monkeypatch):
    data = save(tmp_path / "samples", 3)
    prepared = PreparedData(data, prepare_shards(data)[0])
    other = prepare_shards(replace(data, size=2), prepared)
    assert other[1].shape == (3, 2, 2)
    monkeypatch.setattr(prepare, "open_source", None)
    assert prepare_shards(data, prepared)[0] == prepared.folder
    assert prepare_shards(replace(data, cache="stream"), prepared)[0] == prepared.folder
    for change in ({"size": 2}, {"path": str(tmp_path)}, {"on_bad_image": "skip"}):
        assert prepared.folder_for(replace(data, **change)) is None
