"""Images in memory as shards in the cache: the same images, in their order, written once."""

import itertools
import os

import numpy as np
import pytest
import torch

from cm_ray.data import cached_shards
from cm_ray.data.cached_shards import as_shards
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.shards.manifest import Manifest, check_shards
from cm_ray.errors import UserError
from tests.data.forms import FORMS, Pictures, all_digits, check_equal

IN_MEMORY = [form for form in FORMS if form not in ("folder", "npz", "parquet", "shards")]


@pytest.fixture(scope="module")
def digits():
    return all_digits()


@pytest.fixture
def known():
    return load_images("digits")


@pytest.mark.parametrize("form", IN_MEMORY)
def test_shards_hold_the_same_images(form, digits, known, tmp_path, monkeypatch):
    monkeypatch.setattr(cached_shards, "ROWS_PER_SHARD", 1000)  # batches of 1,024 are cut
    folder = as_shards(FORMS[form](*digits, tmp_path / "data"), cache=tmp_path / "cache")
    check_equal(load_images(folder), known)
    manifest = Manifest.load(tmp_path / "cache" / folder)
    check_shards(tmp_path / "cache" / folder, manifest, full=True)
    assert [shard.rows for shard in manifest.shards] == [1000, 797]
    assert manifest.fingerprint == known.fingerprint
    assert manifest.class_counts == known.class_counts
    assert os.listdir(tmp_path / "cache") == [os.path.basename(folder)]


def test_paths_and_names_are_returned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_shards("digits") == "digits"
    assert as_shards("./digits") == "./digits"
    assert as_shards(tmp_path / "digits", ReadOptions(size=3)) == str(tmp_path / "digits")
    assert as_shards((tmp_path / "digits").relative_to(tmp_path)) == str(tmp_path / "digits")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["tensor", "Dataset of PIL"])
def test_shards_are_used_again(form, digits, tmp_path):
    data = FORMS[form](*digits, tmp_path)
    folder = as_shards(data, cache=tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert as_shards(data, cache=tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")} == {
        file: time for file, time in before.items() if file.suffix
    }
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_folder_is_written_again(digits, tmp_path, known):
    folder = as_shards(digits, cache=tmp_path)
    shard = tmp_path / folder / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert as_shards(digits, cache=tmp_path) == folder
    check_equal(load_images(folder), known)


def test_order_and_names_have_folders_of_their_own(digits, tmp_path):
    images, labels = digits
    sets = [
        (images, labels),
        (images[::-1].copy(), labels[::-1].copy()),
        Pictures(images, labels.tolist(), list("abcdefghij")),
        Pictures(images, labels.tolist(), list("ABCDEFGHIJ")),
    ]
    folders = [as_shards(data, cache=tmp_path) for data in sets]
    assert len(set(folders)) == 4
    manifests = [Manifest.load(tmp_path / folder) for folder in folders]
    assert len({manifest.fingerprint for manifest in manifests}) == 1
    assert load_images(folders[1]).labels.tolist() == labels[::-1].tolist()
    assert manifests[2].class_names == tuple("abcdefghij")
    assert manifests[3].class_names == tuple("ABCDEFGHIJ")


def test_size(digits, tmp_path):
    for data in (digits, Pictures(*digits)):
        folder = as_shards(data, ReadOptions(size=4), cache=tmp_path)
        assert load_images(folder).fingerprint == load_images(digits, size=4).fingerprint


def test_mixed_colours_and_skipped_images(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), np.uint8)
    mixed = [colours[0, :, :, :1], b"no image", colours[1], colours[2]]
    images = load_images(mixed, on_bad_image="skip")
    folder = as_shards(mixed, ReadOptions(on_bad_image="skip"), cache=tmp_path)
    manifest = Manifest.load(tmp_path / folder)
    assert (manifest.shape, manifest.skipped, manifest.count) == ((3, 8, 9), 1, 3)
    assert manifest.fingerprint == images.fingerprint
    assert Manifest.load(tmp_path / as_shards(images, cache=tmp_path)).skipped == 1
    assert torch.equal(load_images(folder).images, images.images)


def test_nothing_is_left_of_what_fails(tmp_path):
    images = np.zeros((2000, 8, 8, 1), np.uint8)
    for labels in ([0] * 1999 + [-1], ["cat"] * 2000):
        with pytest.raises(UserError):
            as_shards(Pictures(images, labels), cache=tmp_path)
    with pytest.raises(UserError, match="list holds no image; give other data"):
        as_shards([], cache=tmp_path)
    with pytest.raises(UserError, match="size must not be negative, but is -2"):
        as_shards(images, ReadOptions(size=-2), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_process_that_was_first_wins(digits, tmp_path, monkeypatch):
    folder = as_shards(digits, cache=tmp_path)
    answers = iter([False, False])  # the folder appears only after it was looked for
    monkeypatch.setattr(cached_shards, "_is_whole", lambda _: next(answers))
    assert as_shards(digits, cache=tmp_path) == folder
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_is_the_cache_of_the_program(test_cache):
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1), np.uint8)
    folder = as_shards(images)
    assert folder.startswith(str(test_cache / "shards" / "array-"))


def test_batches_in_memory_are_those_of_the_shards(digits, tmp_path):
    images = load_images(digits)
    shards = load_images(as_shards(digits, cache=tmp_path))
    settings = {"seed": 3, "batch_size": 100, "start_step": 12}
    for one, other in itertools.islice(
        zip(images.batches(**settings), shards.batches(**settings), strict=True), 10
    ):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
