"""The random order of rows in shards is that of keys, needs little memory, and mixes classes."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from cm_ray.data.cached_shards import as_shards
from cm_ray.data.interface.permutation import KeyStream, Permutation, key_ranges
from cm_ray.data.load_images import load_images
from cm_ray.data.shards import sorted_runs
from cm_ray.data.shards.manifest import Manifest, load_all, read_rows
from cm_ray.data.shards.order import read_unit, stream_units
from cm_ray.data.tables.npz import NpzSource
from cm_ray.errors import UserError
from tests.data.making import make


def numbered(count, shape=(4, 2, 1), classes=10):
    """Images that differ, sorted by class: uint8 (n, h, w, c) and labels (n,)."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return images, np.sort(np.arange(count) % classes)


@pytest.fixture
def save(tmp_path):
    """Write images and labels as an .npz file, and open it."""

    def write(images, labels, name="x"):
        np.savez(tmp_path / f"{name}.npz", images, labels)
        return NpzSource.open([tmp_path / f"{name}.npz"], name)

    return write


def rows_of(out, manifest):
    """All rows in the order in which they lie in the shards."""
    read = [read_rows(out / shard.file, 0, shard.rows, manifest.shape) for shard in manifest.shards]
    return tuple(np.concatenate(column) for column in zip(*read, strict=True))


def test_keys_are_a_stream_of_their_part():
    stream = KeyStream(3, 7)
    taken = [stream.take(count) for count in (5, 0, 1, 94)]
    np.testing.assert_array_equal(np.concatenate(taken), KeyStream(3, 7).take(100))
    assert not set(KeyStream(3, 8).take(100)) & set(KeyStream(3, 7).take(100))
    assert not set(KeyStream(4, 7).take(100)) & set(KeyStream(3, 7).take(100))


def test_the_order_is_that_of_today():
    """Shards that are made again have their order again: it may not change with a version."""
    assert Permutation(0, (4, 0, 5)).places().tolist() == [3, 2, 4, 8, 7, 1, 5, 6, 0]


@pytest.mark.parametrize("rows", [1, 3, 10, 11])
def test_ranges_of_keys(rows):
    keys = KeyStream(0, 0).take(10)
    ranges = key_ranges(keys, rows)
    found = [
        sorted(int(key) for key in keys if low <= key and (high is None or key < high))
        for low, high in ranges
    ]
    assert [len(those) for those in found] == [rows] * (10 // rows) + [10 % rows] * (10 % rows > 0)
    assert [key for those in found for key in those] == sorted(keys.tolist())


def test_rows_lie_in_the_order_of_keys_and_are_given_back_in_that_of_the_source(save, tmp_path):
    images, labels = numbered(2500)
    manifest = make(save(images, labels), tmp_path / "out", 1000)
    assert manifest.permutation == Permutation(0, (1000, 1000, 500))
    assert [shard.rows for shard in manifest.shards] == [1000, 1000, 500]
    order = np.argsort(np.concatenate([KeyStream(0, i).take(n) for i, n in enumerate((1000, 1000, 500))]))
    found = rows_of(tmp_path / "out", manifest)
    np.testing.assert_array_equal(found[0], images.transpose(0, 3, 1, 2)[order])
    assert found[1].tolist() == labels[order].tolist()
    again, numbers = load_all(tmp_path / "out")
    np.testing.assert_array_equal(again, images.transpose(0, 3, 1, 2))
    assert numbers.tolist() == labels.tolist()
    assert Manifest.load(tmp_path / "out") == manifest
    assert manifest.fingerprint == load_images((images, labels)).fingerprint


def test_little_memory_gives_the_same_files(save, tmp_path, monkeypatch):
    source = save(*numbered(5000, (8, 8, 3)))
    wanted = make(source, tmp_path / "much", 1500)
    sizes = []
    concatenate = np.concatenate

    def watched(arrays, *more):
        joined = concatenate(arrays, *more)
        sizes.append(joined.nbytes)
        return joined

    monkeypatch.setattr(sorted_runs, "MEMORY_BYTES", 1 << 17)
    monkeypatch.setattr(sorted_runs.np, "concatenate", watched)
    found = make(source, tmp_path / "little", 1500)
    assert max(sizes) < 1500 * 8 * 8 * 3, "less than a shard is in memory"
    monkeypatch.undo()
    assert [shard.content for shard in found.shards] == [shard.content for shard in wanted.shards]
    for one, other in zip(
        rows_of(tmp_path / "little", found), rows_of(tmp_path / "much", wanted), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_images_in_memory_and_in_a_file_have_equal_shards(save, tmp_path, monkeypatch):
    monkeypatch.setattr("cm_ray.data.cached_shards.ROWS_PER_SHARD", 1000)
    images, labels = numbered(2500)
    manifest = make(save(images, labels), tmp_path / "out", 1000)
    folder = Path(as_shards((images, labels), cache=tmp_path / "cache"))
    cached = Manifest.load(folder)
    assert (cached.shards, cached.permutation) == (manifest.shards, manifest.permutation)
    assert sorted(file.name for file in folder.iterdir()) == [
        "manifest.json",
        *(shard.file for shard in manifest.shards),
    ]
    for shard in manifest.shards:
        assert (folder / shard.file).read_bytes() == (tmp_path / "out" / shard.file).read_bytes()


def distinct(folder, manifest, batch):
    """Mean number of different labels in the first batches of a stream."""
    units = stream_units(manifest, seed=0, rank=0, world=1, batch_per_worker=batch)
    read = itertools.islice((read_unit(folder, unit, manifest.shape)[1] for unit in units), 2)
    labels = np.concatenate(list(read))
    return np.mean([len(set(labels[i : i + batch].tolist())) for i in range(0, len(labels) - batch, batch)])


def test_batches_of_sorted_classes_are_like_random_ones(save, tmp_path):
    """In 2,048 random labels of 1,000 classes, 1000 (1 - 0.999^2048) = 871 different ones are expected."""
    images, labels = numbered(64_000, (1, 1, 1), 1000)
    shuffled = make(save(images, labels), tmp_path / "out")
    assert distinct(tmp_path / "out", shuffled, 2048) == pytest.approx(871, abs=12)


def test_a_run_that_is_cut_off_or_missing(save, tmp_path):
    file = sorted_runs.RunFile(tmp_path / "0.runs", (3,))
    images, labels = numbered(3)
    with sorted_runs.writing_runs(file.path, (1, 4, 2), KeyStream(0, 0)) as writer:
        writer.write(images.transpose(0, 3, 1, 2), labels)
    assert file.path.stat().st_size == file.size((1, 4, 2))
    file.path.write_bytes(file.path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"0.runs is cut off; repeat the command"):
        sorted_runs.write_shuffled(tmp_path / "x", [file], (1, 4, 2), (0, None))
    file.path.unlink()
    with pytest.raises(UserError, match="choose out on storage that all nodes share"):
        sorted_runs.write_shuffled(tmp_path / "x", [file], (1, 4, 2), (0, None))
    assert not (tmp_path / "x").exists()
