"""Shards: what is written is read, damage is named, and the real CIFAR-10 comes through unchanged."""

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.shard_writer import finished_part, grey_parts, make_part, merge, recipe_of, shard_name
from cm_ray.data.shards import (
    Manifest,
    check_shards,
    is_shard_folder,
    load_all,
    read_rows,
    write_shard,
    writing_shard,
)
from cm_ray.data.source import ReadOptions
from cm_ray.errors import UserError

SHAPE = (3, 4, 5)


def some(n, seed=0):
    """Random images (n, *SHAPE) and labels."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (n, *SHAPE), np.uint8), generator.integers(0, 10, n)


def make(source, out, rows=8192, **options):
    """Make shards without Ray."""
    settings = ReadOptions(**options)
    recipe = recipe_of(source, rows, settings.size)
    parts = source.parts(rows)
    results = [make_part(part, out, i, recipe, settings) for i, part in enumerate(parts)]
    for i in grey_parts(results):
        results[i] = make_part(parts[i], out, i, recipe, dataclasses.replace(settings, channels=3))
    manifest = merge(source, recipe, results)
    manifest.save(out)
    return manifest


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
        ({"shards": []}, "is not a manifest of shards"),
        ({"shards": [{**content["shards"][0], "file": "../x"}]}, "is not a manifest of shards"),
    ]:
        (folder / "manifest.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(UserError, match=message):
            Manifest.load(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="is of format None"):
        Manifest.load(folder)
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / shard_name(1)).unlink()
    with pytest.raises(UserError, match=r"shard-00001.parquet is missing"):
        Manifest.load(folder)
    with pytest.raises(UserError, match=r"holds no shards \(manifest.json\)"):
        Manifest.load(folder / "nowhere")


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
    assert (manifest.count, manifest.skipped, [s.rows for s in manifest.shards]) == (2, 3, [1, 1])
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
    recipe = recipe_of(source, 1000, 0)
    result = make_part(source.parts(1000)[0], tmp_path, 0, recipe, options)
    assert finished_part(tmp_path, 0, recipe, options) == result
    assert finished_part(tmp_path, 1, recipe, options) is None
    assert finished_part(tmp_path, 0, recipe_of(source, 999, 0), options) is None
    path = tmp_path / shard_name(0)
    path.write_bytes(path.read_bytes()[:-1])
    assert finished_part(tmp_path, 0, recipe, options) is None


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
