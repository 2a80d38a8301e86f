"""Ray Data delivers the computed order: equal shares, whole epochs, and the very next batch."""

import itertools

import numpy as np
import pytest
import torch

from cm_ray.cluster.data.stream import batches, load_images, memory_batches, rebatched, stream_batches
from cm_ray.data.shards.manifest import Manifest, load_all
from cm_ray.training.batch import Batch, Share

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """4,000 numbered images in shards of 1,500 rows: image i holds i in its first pixels."""
    from cm_ray.data.shards.manifest import Manifest
    from cm_ray.data.shards.shard_file import write_shard

    folder = tmp_path_factory.mktemp("numbered")
    made = []
    for index, start in enumerate(range(0, 4000, 1500)):
        numbers = np.arange(start, min(4000, start + 1500))
        images = np.zeros((len(numbers), 3, 4, 4), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers // 256, numbers % 256
        made.append(write_shard(folder / f"shard-{index:05d}.parquet", images, numbers % 10))
    Manifest(
        shape=(3, 4, 4),
        class_names=tuple("0123456789"),
        class_counts=(400,) * 10,
        source="numbered",
        recipe="-",
        skipped=0,
        shards=tuple(made),
    ).save(folder)
    return folder


def numbers(batch):
    found = batch.images[:, 0, 0, 0].int() * 256 + batch.images[:, 0, 0, 1].int()
    assert torch.equal(found % 10, batch.labels)
    return found.tolist()


def taken(shards, count, way=stream_batches, start=0, share=None, batch_size=128):
    manifest = Manifest.load(shards)
    stream = way(shards, manifest, seed=5, batch_size=batch_size, share=share or Share(), start_step=start)
    rows = [numbers(batch) for batch in itertools.islice(stream, count)]
    stream.close()
    return rows


@pytest.mark.parametrize("way", [stream_batches, memory_batches])
def test_a_resume_goes_on_with_the_very_next_batch(ray_cluster, shards, way):
    whole = taken(shards, 70, way)  # more than two epochs
    assert taken(shards, 20, way, start=50) == whole[50:]
    assert taken(shards, 3, way, start=31) == whole[31:34], "in the middle of an epoch"


def test_streamed_epochs_hold_every_image_at_most_once(ray_cluster, shards):
    steps = 4000 // 128
    rows = taken(shards, 2 * steps)
    first, second = rows[:steps], rows[steps:]
    for epoch in (first, second):
        seen = list(itertools.chain(*epoch))
        assert len(seen) == len(set(seen)) == steps * 128
    assert first != second
    assert sorted(first[0]) != list(range(min(first[0]), max(first[0]) + 1)), "shuffled"


def test_streamed_shares_are_equal_and_disjoint(ray_cluster, shards):
    steps = 4000 // 128
    shares = [taken(shards, steps, share=Share(rank, 2)) for rank in range(2)]
    assert all(len(batch) == 64 for share in shares for batch in share)
    seen = [number for share in shares for batch in share for number in batch]
    assert len(seen) == len(set(seen)) == steps * 128


@pytest.mark.parametrize("way", [stream_batches, memory_batches])
def test_fewer_workers_see_the_batches_of_the_most(ray_cluster, shards, way):
    """One worker takes the place of two, from the middle of an epoch over its end."""
    two = [taken(shards, 4, way, start=29, share=Share(rank, 2, most=2)) for rank in range(2)]
    one = taken(shards, 4, way, start=29, share=Share(0, 1, most=2))
    assert one == [first + second for first, second in zip(*two, strict=True)]


def test_in_memory_all_workers_see_the_same_global_batches(ray_cluster, shards):
    whole = taken(shards, 40, memory_batches)
    halves = [taken(shards, 40, memory_batches, share=Share(rank, 2)) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    sequence = list(itertools.chain(*whole))
    assert sorted(sequence[:4000]) == list(range(4000)), "an epoch drops no image"
    assert sequence[:1120] != sequence[4000:], "and the next has another order"


def test_loading_keeps_the_shards_order(ray_cluster, shards):
    images, labels = load_images(shards, Manifest.load(shards))
    expected = load_all(shards)
    np.testing.assert_array_equal(images.numpy(), expected[0])
    np.testing.assert_array_equal(labels.numpy(), expected[1])


def test_auto_keeps_small_data_in_memory(ray_cluster, shards):
    manifest = Manifest.load(shards)
    options = {"seed": 5, "batch_size": 128, "share": Share(), "start_step": 0}
    auto = batches(shards, manifest, cache="auto", **options)
    assert numbers(next(auto)) == taken(shards, 1, memory_batches)[0]
    streamed = batches(shards, manifest, cache="stream", **options)
    assert numbers(next(streamed)) == taken(shards, 1)[0]
    streamed.close()


@pytest.mark.parametrize("sizes", [[5], [1] * 12, [7, 3, 2], [3, 0, 9], [10, 10, 10]])
def test_rebatching(sizes):
    values = iter(range(1000))
    blocks = []
    for size in sizes:
        rows = torch.tensor([next(values) for _ in range(size)])
        blocks.append(Batch(rows.reshape(-1, 1, 1, 1), rows))
    out = list(rebatched(blocks, 4))
    assert [len(batch.images) for batch in out] == [4] * (sum(sizes) // 4)
    assert torch.cat([batch.labels for batch in out]).tolist() == list(range(sum(sizes) // 4 * 4))
