"""A ray.data.Dataset as images: in its order, whatever its columns hold, and without loading it whole."""

import itertools

import numpy as np
import pytest
import torch

from cm_ray.data.cached_shards import as_shards
from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from tests.data.forms import all_digits, as_folder, as_parquet, check_equal, png

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def digits():
    return all_digits()


@pytest.fixture(scope="module")
def known():
    return load_images("digits")


def of(ray, images, labels, *, image="image", label="label", blocks=7):
    return ray.data.from_items(
        [{image: one, label: int(number)} for one, number in zip(images, labels, strict=True)],
        override_num_blocks=blocks,
    )


@pytest.mark.parametrize("column", [("image", "label"), ("img", "labels")])
def test_arrays(ray_cluster, digits, known, column, tmp_path):
    dataset = of(ray_cluster, *digits, image=column[0], label=column[1])
    check_equal(load_images(dataset), known)
    check_equal(load_images(as_shards(dataset, cache=tmp_path)), known)


def test_floats_and_bytes(ray_cluster, digits, known):
    check_equal(load_images(of(ray_cluster, digits[0].astype(np.float32) / 127.5 - 1, digits[1])), known)
    check_equal(load_images(of(ray_cluster, [png(image) for image in digits[0]], digits[1])), known)


def test_parquet_of_the_hub(ray_cluster, digits, known, tmp_path):
    path = as_parquet(*digits, tmp_path / "x", names="abcdefghij")
    found = load_images(ray_cluster.data.read_parquet(str(path)))
    assert found.class_names == load_images(path).class_names == tuple("abcdefghij")
    assert torch.equal(found.images, known.images)
    assert found.fingerprint == known.fingerprint


def test_the_order_is_kept_though_tasks_end_in_another(ray_cluster, digits, known, tmp_path):
    def first_is_last(batch, folder=tmp_path):
        import time

        place = int(batch["place"][0])
        deadline = time.monotonic() + 60
        while place == 0 and not (folder / "other").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if place == 0:
            time.sleep(0.5)  # the other block is on its way
        (folder / "other").touch()
        return batch

    images, labels = digits
    rows = [{"image": images[i], "label": int(labels[i]), "place": i} for i in range(400)]
    dataset = ray_cluster.data.from_items(rows, override_num_blocks=2)
    dataset = dataset.map_batches(first_is_last, batch_size=None, num_cpus=0.5)
    dataset.context.execution_options.preserve_order = False
    found = load_images(dataset)
    assert torch.equal(found.images, known.images[:400])
    assert not dataset.context.execution_options.preserve_order, "as it was"


def test_resized_and_without_labels(ray_cluster, digits, tmp_path):
    folder = as_folder(digits[0][:20], digits[1][:20], tmp_path / "data")
    dataset = ray_cluster.data.read_images(str(folder), mode="L")
    found = load_images(dataset, size=6)
    assert (found.shape, found.class_names, len(found)) == ((1, 6, 6), (), 20)
    assert sorted(found.images.flatten(1).tolist()) == sorted(
        load_images(folder, size=6).images.flatten(1).tolist()
    )


def test_mixed_sizes_and_colours(ray_cluster):
    colour = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    dataset = of(ray_cluster, [colour, colour[:5]], [0, 1], blocks=1)
    with pytest.raises(
        UserError, match="row 0 of the Ray data set is 9x8 and row 1 of the Ray data set is 9x5"
    ):
        load_images(dataset)
    assert load_images(dataset, size=4).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [{"pixels": 1}],
            r"the Ray data set has no column of images \(its columns: pixels\); drop or rename",
        ),
        ([{"image": np.zeros((8, 8, 3), np.uint8), "label": "cat"}], "label of row 0 of .* is of type str"),
        ([{"image": np.ones((8, 8, 3), np.int64)}], "pixels of row 0 of the Ray data set are int64; give"),
        ([{"image": b"no image"}], "row 0 of the Ray data set is not a readable image"),
        ([{"image": "x.png"}], "image of row 0 of the Ray data set is of type str; give PIL images"),
        ([{"image": np.zeros((8, 8, 3), np.float32)}], "of the Ray data set go from 0 to 0, which could be"),
        ([], "ray holds no image; give other data"),
    ],
)
def test_refused(ray_cluster, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        load_images(ray_cluster.data.from_items(rows))


def test_batches_are_those_of_the_streaming_code(ray_cluster, digits, tmp_path):
    from pathlib import Path

    from cm_ray.cluster.data.stream import batches
    from cm_ray.data.shards.manifest import Manifest
    from cm_ray.training.batch import Share

    images = load_images(digits)
    folder = Path(as_shards(digits, cache=tmp_path))
    options = {"seed": 11, "batch_size": 128, "start_step": 9}
    stream = batches(folder, Manifest.load(folder), cache="memory", share=Share(), **options)
    for batch, (pixels, labels) in itertools.islice(zip(stream, images.batches(**options), strict=True), 20):
        assert torch.equal(batch.images, pixels)
        assert torch.equal(batch.labels, labels)
