"""The order of training data: every image once, equal shares, a resume sees the tail."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.data.shards.manifest import Manifest, Shard, load_all
from cm_ray.data.shards.order import memory_indices, read_unit, steps_per_epoch, stream_units, whole_units
from cm_ray.data.shards.shard_file import write_shard
from cm_ray.errors import UserError

SHAPE = (1, 1, 2)


def manifest_of(rows):
    """A manifest of shards with these numbers of rows; no files."""
    shards = tuple(
        Shard(file=f"{i}.parquet", rows=n, bytes=0, sha256="", content="0") for i, n in enumerate(rows)
    )
    return Manifest(shape=SHAPE, class_names=(), source="x", recipe="", skipped=0, shards=shards)


def rows_of(unit):
    """Names of a unit's rows, in the order in which `read_unit` returns them."""
    names = [(chunk.file, row) for chunk in unit.chunks for row in range(chunk.start, chunk.stop)]
    seeds = np.random.SeedSequence(unit.seed)
    order = np.random.Generator(np.random.PCG64(seeds)).permutation(len(names))
    return [names[i] for i in order[unit.skip :]]


def stream(manifest, count, **settings):
    """The first `count` rows of a worker's stream."""
    rows = (row for unit in stream_units(manifest, **settings) for row in rows_of(unit))
    return list(itertools.islice(rows, count))


layouts = st.lists(st.integers(1, 3000), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(rows=layouts, world=st.integers(1, 4), batch=st.integers(1, 300), seed=st.integers(0, 2**40))
def test_an_epoch_holds_every_row_at_most_once(rows, world, batch, seed):
    manifest = manifest_of(rows)
    if manifest.count < world * batch:
        return
    steps = steps_per_epoch(manifest.count, world * batch)
    shares = [
        stream(manifest, steps * batch, seed=seed, rank=r, world=world, batch_per_worker=batch)
        for r in range(world)
    ]
    seen = [row for share in shares for row in share]
    assert len(seen) == len(set(seen)) == steps * batch * world
    assert manifest.count - len(seen) < world * batch
    assert all(0 <= row < rows[int(file.split(".")[0])] for file, row in seen)


@settings(max_examples=40, deadline=None)
@given(
    rows=layouts,
    world=st.integers(1, 3),
    batch=st.integers(1, 200),
    step=st.integers(0, 60),
    unit_chunks=st.integers(1, 9),
)
def test_a_resume_sees_the_tail(rows, world, batch, step, unit_chunks):
    manifest = manifest_of(rows)
    if manifest.count < world * batch:
        return
    options = {"seed": 3, "rank": world - 1, "world": world, "batch_per_worker": batch}
    options["unit_chunks"] = unit_chunks
    whole = stream(manifest, (step + 5) * batch, **options)
    assert stream(manifest, 5 * batch, start_step=step, **options) == whole[step * batch :]


def test_a_resume_reads_nothing_that_came_before():
    manifest = manifest_of([40_960])
    options = {"seed": 0, "rank": 0, "world": 1, "batch_per_worker": 1024}
    units = list(itertools.islice(stream_units(manifest, **options), 5))
    resumed = next(stream_units(manifest, start_step=20, **options))
    assert resumed.chunks == units[2].chunks
    assert (resumed.skip, resumed.rows) == (4096, 4096)


def test_epochs_and_seeds_differ_and_repeat():
    manifest = manifest_of([4096, 2048])
    options = {"rank": 0, "world": 1, "batch_per_worker": 64}
    one = stream(manifest, 2 * 6144, seed=1, **options)
    assert one == stream(manifest, 2 * 6144, seed=1, **options)
    assert one[:6144] != one[6144:]
    assert sorted(one[:6144]) == sorted(one[6144:])
    assert one != stream(manifest, 2 * 6144, seed=2, **options)


def test_rows_of_many_places_meet_in_a_batch():
    batch = stream(manifest_of([8192] * 8), 256, seed=0, rank=0, world=1, batch_per_worker=256)
    assert len({file for file, _ in batch}) >= 4
    assert np.std([row % 1024 for _, row in batch]) > 200


def test_data_smaller_than_the_batch():
    with pytest.raises(
        UserError, match=r"holds 10 images, fewer than the global batch of 12; take a smaller"
    ):
        stream_units(manifest_of([10]), seed=0, rank=0, world=2, batch_per_worker=6)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        stream_units(manifest_of([10]), seed=0, rank=2, world=2, batch_per_worker=1)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 50), seed=st.integers(0, 2**40), start=st.integers(0, 300), length=st.integers(0, 200)
)
def test_memory_stream_is_epoch_after_epoch(n, seed, start, length):
    whole = memory_indices(seed, n, 0, start + length)
    np.testing.assert_array_equal(memory_indices(seed, n, start, start + length), whole[start:])
    for epoch in range(len(whole) // n):
        assert sorted(whole[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert whole.dtype == np.int64


def test_memory_stream_differs_by_epoch_and_seed():
    epochs = memory_indices(0, 100, 0, 300).reshape(3, 100)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert (memory_indices(0, 100, 0, 100) != memory_indices(1, 100, 0, 100)).any()
    with pytest.raises(ValueError, match="of 0 images"):
        memory_indices(0, 0, 0, 1)


def test_the_order_is_that_of_today():
    """Resumed runs must see the order in which they began: it may not change with a version."""
    assert memory_indices(7, 10, 0, 10).tolist() == [8, 0, 7, 1, 3, 6, 2, 4, 5, 9]
    unit = next(stream_units(manifest_of([3000, 3000]), seed=7, rank=0, world=1, batch_per_worker=10))
    assert [(chunk.file, chunk.start) for chunk in unit.chunks] == [
        ("0.parquet", 2048),
        ("1.parquet", 0),
        ("1.parquet", 1024),
        ("0.parquet", 1024),
        ("0.parquet", 0),
        ("1.parquet", 2048),
    ]
    assert rows_of(unit)[:3] == [("1.parquet", 470), ("0.parquet", 908), ("1.parquet", 1358)]


def test_units_are_read_in_their_order(tmp_path):
    images = np.arange(2 * 3000, dtype=np.int64).astype(np.uint8).reshape(3000, *SHAPE)
    shards = (
        write_shard(tmp_path / "0.parquet", images[:1800], np.arange(1800)),
        write_shard(tmp_path / "1.parquet", images[1800:], np.arange(1800, 3000)),
    )
    manifest = Manifest(shape=SHAPE, class_names=(), source="x", recipe="", skipped=0, shards=shards)
    manifest.save(tmp_path)
    options = {"seed": 0, "rank": 1, "world": 2, "batch_per_worker": 50, "unit_chunks": 2}
    for unit in itertools.islice(stream_units(manifest, start_step=7, **options), 5):
        found, labels = read_unit(tmp_path, unit, SHAPE)
        wanted = [row + (1800 if file == "1.parquet" else 0) for file, row in rows_of(unit)]
        assert labels.tolist() == wanted
        assert len(labels) == unit.rows
        np.testing.assert_array_equal(found, images[wanted])
        assert found.flags.writeable
    whole = [read_unit(tmp_path, unit, SHAPE) for unit in whole_units(manifest, unit_chunks=2)]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in whole]), load_all(tmp_path)[0])
    assert np.concatenate([labels for _, labels in whole]).tolist() == list(range(3000))
