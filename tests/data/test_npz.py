"""An .npz of images: what comes out is what was written, part by part, and what bad files say."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import load_all
from cm_ray.data.tables.npz import NpzSource
from cm_ray.drawing.pictures import save_arrays
from cm_ray.errors import UserError
from tests.data.making import make


def some(n=23, shape=(4, 5, 3)):
    """Random images (n, h, w, c) and labels."""
    generator = np.random.default_rng(n)
    return generator.integers(0, 256, (n, *shape), np.uint8), generator.integers(0, 10, n)


def read(source, rows=1000, **options):
    """All images and labels, part after part, the last part first: none needs another."""
    parts = pickle.loads(pickle.dumps(source.parts(rows)))
    batches = [list(part.read(ReadOptions(**options))) for part in reversed(parts)][::-1]
    flat = [batch for those in batches for batch in those]
    return np.concatenate([b.images for b in flat]), np.concatenate([b.labels for b in flat])


def made(source, out, rows, **options):
    """Make shards without Ray, and load them."""
    return make(source, out, rows, **options), *load_all(out)


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "deflated"])
def save(request, tmp_path):
    """Write arrays to a file, stored or deflated; return its path."""

    def write(*arrays, name="x.npz", **named):
        request.param(tmp_path / name, *arrays, **named)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("labelled", [True, False])
def test_our_own_samples_come_back(tmp_path, channels, labelled):
    images, numbers = some(shape=(4, 5, channels))
    labels = torch.from_numpy(numbers) if labelled else None
    save_arrays(torch.from_numpy(images).permute(0, 3, 1, 2), tmp_path / "own.npz", labels)
    source = open_source(str(tmp_path / "own.npz"))
    found, found_labels = read(source)
    np.testing.assert_array_equal(found, images)
    assert found_labels.tolist() == (numbers.tolist() if labelled else [-1] * 23)
    assert (found.dtype, found_labels.dtype) == (np.uint8, np.int64)
    assert (source.name, source.count, source.class_names) == ("own", 23, ())


@pytest.mark.parametrize("rows", [1, 7, 23, 100])
def test_parts_together_are_the_whole(save, rows):
    images, labels = some()
    source = open_source(save(images, labels.astype(">i2")))
    found = read(source, rows)
    np.testing.assert_array_equal(found[0], images)
    assert found[1].tolist() == labels.tolist()
    assert len(source.parts(rows)) == -(-23 // rows)


def test_batches_are_of_1024_at_most(save):
    images, labels = some(2500)
    (part,) = open_source(save(images, labels)).parts(8192)
    batches = list(part.read(ReadOptions()))
    assert [len(batch.images) for batch in batches] == [len(batch.labels) for batch in batches]
    assert [len(batch.images) for batch in batches] == [1024, 1024, 452]
    assert batches[1].first.endswith("x.npz image 1024")


def test_shards_of_it(save, tmp_path):
    images, labels = some()
    source = open_source(save(images, labels))
    manifest, planes, numbers = made(source, tmp_path / "out", 10)
    np.testing.assert_array_equal(planes.transpose(0, 2, 3, 1), images)
    assert numbers.tolist() == labels.tolist()
    assert (manifest.shape, manifest.source) == ((3, 4, 5), "x")
    assert manifest.class_names == tuple(str(i) for i in range(labels.max() + 1))
    assert made(source, tmp_path / "other", 23)[0].fingerprint == manifest.fingerprint
    assert made(source, tmp_path / "small", 10, size=2)[1].shape == (23, 3, 2, 2)


def test_grey_shards_without_labels(save, tmp_path):
    grey = some(shape=(4, 4, 1))[0]
    source = open_source(save(grey))
    manifest, planes, _ = made(source, tmp_path / "out", 10)
    assert (manifest.shape, manifest.class_names) == ((1, 4, 4), ())
    np.testing.assert_array_equal(planes[:, 0], grey[..., 0])
    assert read(source, channels=3)[0].shape == (23, 4, 4, 3)


def test_a_part_of_a_big_file_takes_little_memory(save):
    images = np.zeros((4096, 64, 64, 3), np.uint8)  # 48 MiB
    images[4000:] = 7
    source = open_source(save(images))
    tracemalloc.start()
    (batch,) = source.parts(100)[40].read(ReadOptions())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(batch.images), batch.images.min()) == (96, 7)
    assert peak < 40e6  # zipfile inflates 16 MiB at a time


def test_a_part_of_a_stored_file_reads_only_its_rows(tmp_path):
    images, labels = some(3000)
    np.savez(tmp_path / "x.npz", images, labels)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[5000] ^= 1  # a pixel of the first images: who reads all finds another CRC
    (tmp_path / "x.npz").write_bytes(content)
    last = NpzSource.open([tmp_path / "x.npz"], "x").parts(1000)[2]
    np.testing.assert_array_equal(next(last.read(ReadOptions())).images, images[2000:])


def test_labels_and_images_of_other_names(save):
    images, labels = some()
    found = read(open_source(save(pictures=images, labels=labels, mu=np.zeros(3))))
    np.testing.assert_array_equal(found[0], images)
    assert found[1].tolist() == labels.tolist()


IMAGES, LABELS = some()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"mu": np.zeros(3), "x": LABELS},
            r"has no array of images \(its arrays: mu, x\); name one by",
        ),
        ({"a": IMAGES, "b": IMAGES}, r"has several arrays of images \(a, b\); name one by data.image_column"),
        ({"arr_0": IMAGES / 255}, r"arr_0 of .*x.npz is float64, not uint8; save .* uint8 in \[0, 255\]"),
        ({"arr_0": IMAGES.astype(object)}, "arr_0 of .* holds pickled Python objects, which are not read"),
        (
            {"x": IMAGES[:, :3]},
            r"x of .* is \(23, 3, 5, 3\), and which axis holds the channels",
        ),
        (
            {"arr_0": IMAGES[..., 0, :].copy()},
            r"is \(23, 4, 3\), and which axis holds the channels",
        ),
        ({"arr_0": np.zeros((3, 6, 5, 2), np.uint8)}, r"is \(3, 6, 5, 2\); give .* with 1 or 3 channels"),
        ({"arr_0": np.dstack([IMAGES[0]] * 2)[None, ..., :4]}, "with 4 channels; drop the transparency"),
        ({"arr_0": IMAGES[0, 0]}, r"The shape of arr_0 of .* is \(5, 3\); give \(n, h, w, c\) or"),
        ({"arr_0": IMAGES.reshape(23, -1)}, r"The shape of arr_0 of .* is \(23, 60\); give"),
        ({"arr_0": IMAGES[:0]}, r"arr_0 of .* holds no images: .*; give another file"),
        ({"arr_0": IMAGES[:, :0]}, "holds no images"),
        ({"arr_0": np.asfortranarray(IMAGES)}, "is in Fortran order; save its numpy.ascontiguousarray"),
        ({"arr_0": IMAGES, "arr_1": LABELS[:5]}, r"arr_1 of .* shape \(5,\), not a label for each of the 23"),
        (
            {"arr_0": IMAGES, "arr_1": np.eye(23)},
            "is float64, neither integers nor texts; number",
        ),
        ({"arr_0": IMAGES, "arr_1": LABELS / 2}, "arr_1 of .* is float64, neither integers nor texts"),
        ({"arr_0": IMAGES, "arr_1": LABELS.astype(object)}, "arr_1 of .* holds pickled Python objects"),
        ({}, r"has no array of images \(its arrays: none\)"),
    ],
)
def test_arrays_that_do_not_fit(save, arrays, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        open_source(save(**arrays))
    assert "\n" not in str(raised.value)


def written(path, compression=zipfile.ZIP_STORED, **members):
    """Write a zip of these bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes()[:700]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(npy(IMAGES)),
        lambda path: written(path, arr_0=npy(IMAGES)[:-1]),
        lambda path: written(path, arr_0=npy(IMAGES)[:50]),
        lambda path: written(path, arr_0=b"no array"),
        lambda path: written(path, arr_0=npy(IMAGES), arr_1=npy(LABELS)[:-1]),
    ],
)
def test_files_that_are_not_whole(save, tmp_path, damage):
    path = save(IMAGES, LABELS)
    damage(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"x.npz is not a whole .npz file \(.*\); fetch or write") as raised:
        open_source(path)
    assert "\n" not in str(raised.value)


def test_damage_is_said_where_it_is_read(tmp_path):
    images = some(3000)[0]
    written(tmp_path / "x.npz", zipfile.ZIP_DEFLATED, arr_0=npy(images))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[-40_000:-20_000] = bytes(20_000)
    (tmp_path / "x.npz").write_bytes(content)
    first, _, last = NpzSource.open([tmp_path / "x.npz"], "x").parts(1000)
    np.testing.assert_array_equal(next(first.read(ReadOptions())).images, images[:1000])
    with pytest.raises(UserError, match="is not a whole"):
        list(last.read(ReadOptions()))


def test_a_file_that_is_gone_or_another_one(save, tmp_path):
    (part,) = open_source(save(IMAGES)).parts(100)
    save(IMAGES[:10])
    with pytest.raises(UserError, match=r"x.npz has become shorter .* repeat the command"):
        list(part.read(ReadOptions()))
    (tmp_path / "x.npz").unlink()
    with pytest.raises(UserError, match=r"Could not read .*x.npz \(No such file .*\); every machine must"):
        list(part.read(ReadOptions()))


def test_a_locked_file_and_an_odd_compression(tmp_path):
    path = tmp_path / "x.npz"
    for at, value in ((6, 1), (8, 99)):  # in the local header: its flags, its compression
        written(path, arr_0=npy(IMAGES))
        content = bytearray(path.read_bytes())
        content[at] = value
        content[content.index(b"PK\x01\x02") + at + 2] = value
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x.npz cannot be read \(.*\); write it with numpy.savez"):
            open_source(str(path))


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "x.npz", np.array([Bomb()], dtype=object), IMAGES)
    with pytest.raises(UserError, match="pickled Python objects"):
        open_source(str(tmp_path / "x.npz"))
    assert not (tmp_path / "exploded").exists()
