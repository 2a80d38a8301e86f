"""Shards: what is written is read, and damage is named."""

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import (
    Manifest,
    check_shards,
    is_shard_folder,
    load_all,
    read_rows,
)
from cm_ray.data.shards.shard_file import write_shard, writing_shard
from cm_ray.data.shards.shard_writer import (
    shard_name,
)
from cm_ray.errors import UserError
from tests.data.making import make

SHAPE = (3, 4, 5)


def some(n, seed=0):
    """Random images (n, *SHAPE) and labels."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (n, *SHAPE), np.uint8), generator.integers(0, 10, n)


@pytest.fixture
def folder(tmp_path):
    """Shards of 2,500 images."""
    images, labels = some(2500)
    shards = [
        write_shard(tmp_path / shard_name(0), images[:1500], labels[:1500]),
        write_shard(tmp_path / shard_name(1), images[1500:], labels[1500:]),
    ]
    Manifest(
        shape=SHAPE,
        class_names=tuple("0123456789"),
        class_counts=tuple(np.bincount(labels, minlength=10).tolist()),
        source="random",
        recipe="r",
        skipped=0,
        shards=tuple(shards),
    ).save(tmp_path)
    return tmp_path


def test_what_is_written_is_read(folder):
    images, labels = some(2500)
    manifest = Manifest.load(folder)
    assert (manifest.count, manifest.classes, manifest.shape) == (2500, 10, SHAPE)
    assert manifest.pixel_bytes == 2500 * 60
    found = load_all(folder)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)
    assert found[0].flags.writeable
    assert is_shard_folder(folder)
    assert not is_shard_folder(folder.parent)
    check_shards(folder, manifest, full=True)


@pytest.mark.parametrize(("start", "stop"), [(0, 1500), (0, 1), (1023, 1025), (1100, 1500), (7, 7), (3, 900)])
@pytest.mark.parametrize("verify", [True, False])
def test_read_rows(folder, start, stop, verify):
    images, labels = some(2500)
    found = read_rows(folder / shard_name(0), start, stop, SHAPE, verify=verify)
    np.testing.assert_array_equal(found[0], images[start:stop])
    np.testing.assert_array_equal(found[1], labels[start:stop])
    assert (found[0].dtype, found[1].dtype) == (np.uint8, np.int64)


def test_layout_of_the_file(folder):
    with pq.ParquetFile(folder / shard_name(0)) as parquet:
        assert parquet.schema_arrow.field("image").type == pa.binary(60)
        assert parquet.schema_arrow.field("label").type == pa.int64()
        assert [parquet.metadata.row_group(i).num_rows for i in range(2)] == [1024, 476]


def test_fingerprint_is_of_the_content(folder, tmp_path):
    images, labels = some(2500)
    manifest = Manifest.load(folder)
    one = hashlib.sha256(images[7].tobytes() + labels[7].astype("<i8").tobytes()).hexdigest()
    assert write_shard(tmp_path / "one", images[7:8], labels[7:8]).content == one

    def fingerprint(*shards):
        return dataclasses.replace(manifest, shards=shards).fingerprint

    back = np.arange(2500)[::-1]
    whole = write_shard(tmp_path / "whole", images[back], labels[back])
    assert fingerprint(whole) == manifest.fingerprint, "neither the cut nor the order counts"
    assert fingerprint(manifest.shards[0], write_shard(tmp_path / "x", *some(1000, seed=5))) != (
        manifest.fingerprint
    )
    labels[3] += 1
    assert fingerprint(write_shard(tmp_path / "y", images, labels)) != manifest.fingerprint


def test_a_failure_leaves_no_shard(tmp_path):
    with pytest.raises(RuntimeError), writing_shard(tmp_path / "x.parquet", SHAPE) as writer:  # noqa: PT012
        writer.write(*some(3))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="images and 3 labels"):
        write_shard(tmp_path / "x.parquet", some(4)[0], some(3)[1])


def test_truncated_shard(folder):
    path = folder / shard_name(1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"shard-00001.parquet has \d+ bytes, not"):
        check_shards(folder, Manifest.load(folder))
    with pytest.raises(UserError, match=r"shard-00001.parquet is missing, cut off or corrupt") as raised:
        load_all(folder)
    assert "\n" not in str(raised.value)


def test_altered_shard(folder):
    path, manifest = folder / shard_name(0), Manifest.load(folder)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1  # within the first row group's pixels
    path.write_bytes(data)
    check_shards(folder, manifest)
    with pytest.raises(UserError, match=r"shard-00000.parquet is corrupt \(another SHA-256\)"):
        check_shards(folder, manifest, full=True)
    with pytest.raises(UserError, match=r"shard-00000.parquet is missing, cut off or corrupt"):
        read_rows(path, 0, 10, SHAPE)
    read_rows(path, 1024, 1500, SHAPE)


def test_images_of_each_class_are_counted(folder, tmp_path):
    """The counts are those of the labels, whatever the parts, and of classes without images too."""
    assert Manifest.load(folder).class_counts == tuple(np.bincount(some(2500)[1], minlength=10).tolist())
    labels = np.array([1, 4, 1, 2, 4, 1, 4, 1])
    np.savez(tmp_path / "from_one.npz", np.zeros((8, 4, 4, 1), np.uint8), labels)
    for rows in (1, 3, 8):
        manifest = make(open_source(str(tmp_path / "from_one.npz")), tmp_path / f"rows{rows}", rows=rows)
        assert manifest.class_names == ("0", "1", "2", "3", "4")
        assert manifest.class_counts == (0, 4, 1, 0, 3)
    assert load_images(tmp_path / "from_one.npz").class_counts == (0, 4, 1, 0, 3)
    assert load_images(np.zeros((8, 4, 4, 1), np.uint8)).class_counts == ()


def test_shards_that_do_not_fit_the_manifest(folder):
    for start, stop, shape in [(0, 1501, SHAPE), (0, 10, (3, 4, 4))]:
        with pytest.raises(UserError, match="does not hold rows"):
            read_rows(folder / shard_name(0), start, stop, shape)
    pq.write_table(pa.table({"x": [1]}), folder / "other.parquet")
    with pytest.raises(UserError, match="does not hold rows"):
        read_rows(folder / "other.parquet", 0, 1, SHAPE)
    with pytest.raises(UserError, match="gone is missing"):
        read_rows(folder / "gone", 0, 1, SHAPE)


def test_manifests_that_are_none(folder):
    content = json.loads((folder / "manifest.json").read_text())
    for change, message in [
        ({"format": 9}, "is of format 9, not 2"),
        ({"shape": [1, 2]}, "is not a manifest of shards"),
        ({"class_counts": [2500]}, "is not a manifest of shards"),
        ({"class_counts": [1] * 10}, r"is not a manifest of shards \(10 labelled images of 2500\)"),
        ({"permutation": {"seed": 0, "parts": [1]}}, r"\(a permutation of 1 images of 2500\)"),
        ({"permutation": {"seed": 0, "parts": [2501, -1]}}, r"\(parts of \(2501, -1\) images\)"),
        ({"permutation": "none"}, "is not a manifest of shards"),
        ({"permutation": {"seed": -1, "parts": [2500]}}, r"\(the seed -1\)"),
        ({"shape": [3, 0, 5]}, r"\(the shape \(3, 0, 5\)\)"),
        ({"shape": [3, 10**6, 10**6]}, r"\(1500 images of \(3, 1000000, 1000000\) in 1"),
        ({"skipped": "none"}, "skipped must be int, not 'none'"),
        ({"reading": {"background": "pink", "bits": 0}}, "background is white, black, grey or #rrggbb"),
        ({"shards": [{**content["shards"][0], "rows": 10**12}]}, r"\(1000000000000 images of \(3, 4, 5\) in"),
        ({"shards": [{**content["shards"][0], "content": 7}]}, "content must be str, not 7"),
        ({"shards": [{**content["shards"][0], "a\nb": 7}]}, "a b is not a setting"),
        ({"shards": []}, "is not a manifest of shards"),
        ({"shards": [{**content["shards"][0], "file": "../x"}]}, "is not a manifest of shards"),
    ]:
        (folder / "manifest.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=message):
            Manifest.load(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="holds no shards"):
        Manifest.load(folder)
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / shard_name(1)).unlink()
    with pytest.raises(UserError, match=r"shard-00001.parquet is missing"):
        Manifest.load(folder)
    with pytest.raises(UserError, match=r"holds no shards \(manifest.json\)"):
        Manifest.load(folder / "nowhere")
