"""Shards made from sources: bad and mixed images, labels, and the real CIFAR-10, unchanged."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import load_all
from cm_ray.data.shards.shard_writer import (
    Layout,
    finished_part,
    finished_shard,
    make_part,
    make_shard,
    recipe_of,
    run_file,
)
from cm_ray.errors import UserError
from tests.data.making import make


def save_images(folder, modes, size=(5, 4)):
    """Write one image file per mode; a broken one for None."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, mode in enumerate(modes):
        path = folder / f"{i:03d}.png"
        if mode is None:
            path.write_bytes(b"broken")
        else:
            pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(path)


def test_digits_become_shards(tmp_path):
    manifest = make(open_source("digits"), tmp_path, rows=1000)
    assert (manifest.shape, manifest.count, manifest.classes) == ((1, 8, 8), 1797, 10)
    assert [shard.rows for shard in manifest.shards] == [1000, 797]
    again = make(open_source("digits"), tmp_path / "again", rows=1000)
    assert again == manifest


def test_grey_and_colour_become_colour(tmp_path):
    save_images(tmp_path / "in", ["L", "L", "L", "RGB", "L", "RGB"])
    for rows in (2, 6):  # within a part and over parts
        manifest = make(open_source(str(tmp_path / "in")), tmp_path / f"out{rows}", rows=rows)
        images, labels = load_all(tmp_path / f"out{rows}")
        assert manifest.shape == (3, 4, 5)
        assert sum((image[0] == image[2]).all() for image in images) == 4
        assert (labels == -1).all()
        assert manifest.classes == 0


def test_grey_stays_grey(tmp_path):
    save_images(tmp_path / "in", ["L", "L"])
    assert make(open_source(str(tmp_path / "in")), tmp_path / "out").shape == (1, 4, 5)


def test_bad_images_are_counted(tmp_path):
    save_images(tmp_path / "in", [None, "RGB", None, None, "RGB"])
    source = open_source(str(tmp_path / "in"))
    manifest = make(source, tmp_path / "out", rows=2, on_bad_image="skip")
    assert (manifest.count, manifest.skipped, [s.rows for s in manifest.shards]) == (2, 3, [2])
    save_images(tmp_path / "bad", [None, None])
    with pytest.raises(UserError, match="bad has no readable image \\(2 were skipped\\)"):
        make(open_source(str(tmp_path / "bad")), tmp_path / "out2", on_bad_image="skip")


def test_sizes_that_differ_between_parts(tmp_path):
    save_images(tmp_path / "in", ["RGB"] * 2)
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "9.png")
    source = open_source(str(tmp_path / "in"))
    with pytest.raises(UserError, match=r"is (5x4|9x9) and .* is (5x4|9x9); set size"):
        make(source, tmp_path / "out", rows=2)
    assert make(source, tmp_path / "out", rows=2, size=4).shape == (3, 4, 4)


def test_labels_that_do_not_fit(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    for name, labels, message in [
        ("a", [0, -1], "images without a label"),
        ("b", [0, -5], "or with the label -5"),
    ]:
        pq.write_table(pa.table({"img": [data] * 2, "label": labels}), tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match=message):
            make(open_source(str(tmp_path / f"{name}.parquet")), tmp_path / name)
    pq.write_table(pa.table({"img": [data] * 2, "label": [0, 3]}), tmp_path / "c.parquet")
    assert make(open_source(str(tmp_path / "c.parquet")), tmp_path / "c").class_names == tuple("0123")
    names = b'{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'
    table = pa.table({"img": [data], "label": [2]}).replace_schema_metadata({"huggingface": names})
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(UserError, match="label 2 but names only 2 classes"):
        make(open_source(str(tmp_path / "d.parquet")), tmp_path / "d")


def test_finished_parts(tmp_path):
    source, options = open_source("digits"), ReadOptions()
    recipe = recipe_of(source, 1000, ReadOptions())
    result = make_part(source.parts(1000)[0], tmp_path, 0, recipe, options)
    assert finished_part(tmp_path, 0, recipe, options) == result
    assert finished_part(tmp_path, 1, recipe, options) is None
    assert finished_part(tmp_path, 0, recipe_of(source, 999, ReadOptions()), options) is None
    path = run_file(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert finished_part(tmp_path, 0, recipe, options) is None


def test_finished_shards(tmp_path):
    source, options = open_source("digits"), ReadOptions()
    results = [make_part(part, tmp_path, i, "r", options) for i, part in enumerate(source.parts(1000))]
    layout, other = (Layout.of(source, tmp_path, results, rows) for rows in (1000, 999))
    shard = make_shard(tmp_path, 1, layout)
    assert shard.rows == 797
    assert finished_shard(tmp_path, 1, layout) == shard
    assert finished_shard(tmp_path, 0, layout) is None
    assert finished_shard(tmp_path, 1, other) is None
    (tmp_path / shard.file).write_bytes(b"")
    assert finished_shard(tmp_path, 1, layout) is None


def order_free(images):
    """SHA-256 over the sorted SHA-256 of each image's HWC bytes."""
    digests = sorted(hashlib.sha256(i.tobytes()).digest() for i in images.transpose(0, 2, 3, 1))
    return hashlib.sha256(b"".join(digests)).hexdigest()


@pytest.mark.parametrize(
    ("split", "count", "digest"),
    [
        ("test", 10_000, "eb97bdfceb97fec3832a6abdbbf9f16340a510375c77ce1b32c45de1e6d88318"),
        pytest.param(
            "train",
            50_000,
            "6bebf6967ad9d2d12d9cf95f54164bd95a0954d3177f1285fa8dd3673671ca76",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_real_cifar10_comes_through(cifar10, tmp_path, split, count, digest):
    manifest = make(open_source(str(cifar10), split), tmp_path)
    images, labels = load_all(tmp_path, manifest)
    assert images.shape == (count, 3, 32, 32)
    assert order_free(images) == digest
    assert np.bincount(labels).tolist() == [count // 10] * 10
    assert manifest.class_names[:2] == ("airplane", "automobile")
