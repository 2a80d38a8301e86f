"""Shards at an address: read by row groups, with the pixels of a folder; anything else is a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cm_ray as cm
from cm_ray.data.cached_shards import as_shards
from cm_ray.data.shards.manifest import MANIFEST, Manifest, check_shards, load_all, read_rows
from cm_ray.evaluation.reference import Shards
from cm_ray.remote.objects import Objects


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of three shards of random images, of several row groups each."""
    images = torch.randint(
        0, 256, (5000, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Path(as_shards((images, torch.arange(5000) % 7), cache=tmp_path_factory.mktemp("shards")))


@pytest.fixture
def address(store, folder):
    """The address of a copy of the folder."""
    objects = Objects(f"{store.bucket()}/data/shards")
    for file in folder.iterdir():
        if file.is_file():
            objects.write(file.name, file)
    return objects.address


def test_shards_at_an_address_are_those_of_the_folder(address, folder):
    place = Path(address)
    manifest = Manifest.load(place)
    assert manifest == Manifest.load(folder)
    check_shards(place, manifest)
    for there, here in zip(load_all(place), load_all(folder), strict=True):
        assert np.array_equal(there, here)
    blocks = zip(Shards.open(place).blocks(), Shards.open(folder).blocks(), strict=True)
    assert all(torch.equal(there, here) for there, here in blocks)
    assert torch.equal(cm.load_images(address).images, cm.load_images(folder).images)


def test_only_the_row_groups_that_are_wanted_are_read(address, folder, store, monkeypatch):
    shard = Manifest.load(Path(address)).shards[0]
    read, whole = [], Objects.read_range

    def watched(self, key, start, stop, etag=""):
        read.append(stop - start)
        return whole(self, key, start, stop, etag)

    monkeypatch.setattr(Objects, "read_range", watched)
    images, _ = read_rows(Path(address) / shard.file, 1024, 1040, (3, 8, 8))
    assert np.array_equal(images, read_rows(folder / shard.file, 1024, 1040, (3, 8, 8))[0])
    assert 1024 * 3 * 64 <= sum(read) < shard.bytes / 2


def test_shards_that_change_are_cut_off_or_missing_are_a_sentence(address, folder):
    objects, place = Objects(address), Path(address)
    manifest = Manifest.load(place)
    first = manifest.shards[0].file
    read_rows(place / first, 0, 10, manifest.shape)
    objects.remove(first)
    objects.create(first, (folder / first).read_bytes()[:-1] + b"x")
    with pytest.raises(cm.UserError, match=r"s3://.* has changed while it was read"):
        read_rows(place / first, 1024, 1034, manifest.shape)
    objects.remove(first)
    with pytest.raises(cm.UserError, match=f"{first} is missing; restore it"):
        check_shards(place, manifest)
    objects.remove(MANIFEST)


def test_images_at_an_address_are_refused_before_any_work(store):
    with pytest.raises(cm.UserError, match="holds no shards, and nothing else is read from an address"):
        cm.load_images(f"{store.bucket()}/photos")
    with pytest.raises(cm.UserError, match="hf://x cannot be used: give a folder"):
        cm.load_images("hf://x")


def test_a_training_on_shards_at_an_address_is_the_one_on_the_folder(address, folder, tmp_path):
    from tests.remote.test_remote_training import recipe

    changes = {
        "evaluation.extractor": "none",
        "evaluation.every": 0,
        "steps": 2,
        "network.conditional": False,
    }
    for place, data in (("there", address), ("here", str(folder))):
        cm.Trainer(cm.override(recipe(), changes), data, out=tmp_path / place, quiet=True).train()
    weights = [(tmp_path / place / "model/weights.safetensors").read_bytes() for place in ("there", "here")]
    assert weights[0] == weights[1]
