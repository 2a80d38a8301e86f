"""Sources: what is recognised, what comes out, and what bad input says."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm_ray.data.interface.source import ReadOptions, cut_pieces
from cm_ray.data.open_source import open_source
from cm_ray.data.pictures.images import decode
from cm_ray.errors import UserError


def picture(seed, mode="RGB", size=(6, 5)):
    """A random image; size is (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode)


def encoded(image, format="png"):
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def read(source, rows=1000, **options):
    """All images, labels and the number skipped, part after part."""
    parts = pickle.loads(pickle.dumps(source.parts(rows)))
    batches = [batch for part in parts for batch in part.read(ReadOptions(**options))]
    full = [batch for batch in batches if len(batch.images)]
    return (
        np.concatenate([batch.images for batch in full]),
        np.concatenate([batch.labels for batch in full]),
        sum(batch.skipped for batch in batches),
    )


def write_parquet(path, images, labels=None, column="img", plain=False, metadata=None, **options):
    data = images if plain else [{"bytes": image, "path": None} for image in images]
    table = pa.table({column: data} | ({} if labels is None else {"label": labels}))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)


@pytest.fixture
def classes(tmp_path):
    """Two classes of three images, one in a deeper folder."""
    for index, name in enumerate(["b/1.png", "b/2.PNG", "b/deep/3.png", "a/1.png", "a/2.png", "a/.x.png"]):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(index)))
    return tmp_path / "set"


def test_digits():
    source = open_source("digits")
    images, labels, skipped = read(source, rows=500)
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert set(np.unique(images)) == {round(v * 255 / 16) for v in range(17)}
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (len(source.parts(500)), skipped, source.class_names) == (4, 0, tuple("0123456789"))
    assert read(source, size=4)[0].shape == (1797, 4, 4, 1)
    assert read(source, channels=3)[0].shape == (1797, 8, 8, 3)


def test_folder_of_classes(classes):
    source = open_source(str(classes))
    images, labels, _ = read(source, rows=2)
    assert source.class_names == ("a", "b")
    seeds = {"a/1.png": 3, "a/2.png": 4, "b/1.png": 0, "b/2.PNG": 1, "b/deep/3.png": 2}
    assert sorted(source.files) == sorted(seeds)  # hidden files are no images
    assert labels.tolist() == [("a", "b").index(file[0]) for file in source.files]
    wanted = [np.asarray(picture(seeds[file])) for file in source.files]
    np.testing.assert_array_equal(images, np.stack(wanted))


def test_a_folder_is_shuffled_always_alike(tmp_path):
    for index in range(40):
        path = tmp_path / f"class{index // 20}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture(index)))
    source = open_source(str(tmp_path))
    assert 5 < sum(source.labels[:20]) < 15, "classes do not lie one after the other"
    assert open_source(str(tmp_path)) == source


def test_folder_without_classes(tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(encoded(picture(seed)))
    source = open_source(str(tmp_path))
    _, labels, _ = read(source)
    assert (labels.tolist(), source.class_names) == ([-1, -1, -1], ())


def test_images_beside_classes(classes):
    (classes / "stray.png").write_bytes(encoded(picture(9)))
    with pytest.raises(UserError, match=r"both directly \(stray.png\) and in the sub-folder 'a'"):
        open_source(str(classes))


def test_splits(classes, tmp_path):
    root = tmp_path / "splits"
    root.mkdir()
    classes.rename(root / "train")
    (root / "test").mkdir()
    (root / "test" / "x.png").write_bytes(encoded(picture(1)))
    assert (len(read(open_source(str(root)))[0]), open_source(str(root)).name) == (5, "splits-train")
    assert len(read(open_source(str(root), "test"))[0]) == 1
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        open_source(str(root), "tset")


def test_a_class_may_be_called_train(classes):
    (classes / "a").rename(classes / "train")
    assert open_source(str(classes)).class_names == ("b", "train")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "bmp"])
def test_formats(tmp_path, format):
    (tmp_path / f"x.{format}").write_bytes(encoded(picture(0), format))
    assert read(open_source(str(tmp_path)))[0].shape == (1, 5, 6, 3)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("L", 1), ("1", 1), ("LA", 1), ("I;16", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)],
)
def test_modes(mode, channels):
    if mode == "I;16":
        wide = np.random.default_rng(0).integers(0, 1 << 16, (5, 6), np.uint16)
        pixels = decode(encoded(Image.fromarray(wide)), ReadOptions()).pixels
        np.testing.assert_array_equal(pixels[..., 0], np.rint(wide / 257))
    else:
        image = picture(0).convert(mode)
        pixels = decode(encoded(image, "tiff" if mode == "CMYK" else "png"), ReadOptions()).pixels
    assert pixels.shape == (5, 6, channels)
    assert decode(encoded(picture(0, "L")), ReadOptions(channels=3)).pixels.shape == (5, 6, 3)


def test_a_camera_held_upright():
    image, exif = picture(0, size=(8, 4)), Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", exif=exif)
    assert decode(buffer.getvalue(), ReadOptions()).pixels.shape == (8, 4, 3)


def test_size_crops_the_centre_and_averages():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 200  # the centre square
    result = decode(encoded(Image.fromarray(pixels)), ReadOptions(size=4)).pixels
    assert result.shape == (4, 4, 3)
    assert (result == 200).all()
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    small = decode(encoded(Image.fromarray(checks.astype(np.uint8))), ReadOptions(size=8)).pixels
    assert abs(small.astype(int) - 127).max() <= 3  # without antialiasing it would be 0 or 255


def test_mixed_sizes_name_both(classes):
    (classes / "b" / "9.png").write_bytes(encoded(picture(0, size=(7, 7))))
    source = open_source(str(classes))
    with pytest.raises(
        UserError, match=r"(is 6x5 and .*b/9.png is 7x7|b/9.png is 7x7 and .* is 6x5); set size"
    ):
        read(source)
    assert read(source, size=4)[0].shape == (6, 4, 4, 3)


def test_corrupt_image_is_named_or_skipped(classes):
    bad = classes / "b" / "2.PNG"
    bad.write_bytes(bad.read_bytes()[:60])
    source = open_source(str(classes))
    with pytest.raises(UserError, match=r"b/2.PNG is not a readable image .*set on_bad_image to skip"):
        read(source)
    images, labels, skipped = read(source, on_bad_image="skip")
    assert (len(images), sorted(labels.tolist()), skipped) == (4, [0, 0, 1, 1], 1)


def test_a_vanished_file_is_not_skipped(classes):
    source = open_source(str(classes))
    (classes / "a" / "1.png").unlink()
    with pytest.raises(UserError, match="Could not read"):
        read(source, on_bad_image="skip")


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_rows_and_labels(tmp_path, plain, column):
    images = [encoded(picture(seed)) for seed in range(23)]
    for name, rows in [("a", slice(0, 10)), ("b", slice(10, 23))]:
        path = tmp_path / f"{name}.parquet"
        write_parquet(path, images[rows], list(range(23))[rows], column, plain, row_group_size=4)
    source = open_source(str(tmp_path))
    for rows in (1, 7, 100):
        found, labels, _ = read(source, rows=rows)
        assert labels.tolist() == list(range(23))
        np.testing.assert_array_equal(found, np.stack([np.asarray(picture(seed)) for seed in range(23)]))
    assert [len(read_part) for read_part in source.parts(7)[1].pieces] == [3, 3]  # over two files


def test_parquet_class_names_and_missing_labels(tmp_path):
    names = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    write_parquet(tmp_path / "x.parquet", [encoded(picture(0))], [1], metadata={"huggingface": names})
    assert open_source(str(tmp_path / "x.parquet")).class_names == ("cat", "dog")
    write_parquet(tmp_path / "y.parquet", [encoded(picture(0))])
    assert read(open_source(str(tmp_path / "y.parquet")))[1].tolist() == [-1]
    write_parquet(tmp_path / "z.parquet", [encoded(picture(0))] * 2, [1, None])
    with pytest.raises(UserError, match="row 1 has no label"):
        read(open_source(str(tmp_path / "z.parquet")))


def test_parquet_hub_splits(tmp_path):
    for split, count in [("train", 3), ("test", 2)]:
        path = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, [encoded(picture(i)) for i in range(count)], [0] * count)
    assert len(read(open_source(str(tmp_path)))[0]) == 3
    assert len(read(open_source(str(tmp_path), "test"))[0]) == 2
    with pytest.raises(UserError, match="no split 'val'"):
        open_source(str(tmp_path), "val")
    (tmp_path / "data" / "train-00000-of-00001.parquet").unlink()
    assert len(read(open_source(str(tmp_path)))[0]) == 2  # the default takes the only split


def test_parquet_corrupt_image_and_file(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(path, [encoded(picture(0)), b"no image", encoded(picture(1)), None], [0, 1, 2, 3])
    with pytest.raises(UserError, match=r"x.parquet row 1 is not a readable image"):
        read(open_source(str(path)))
    assert read(open_source(str(path)), on_bad_image="skip")[1:][1] == 2
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"x.parquet is not a whole Parquet file"):
        open_source(str(path))


def test_nothing_usable(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "manifest.json").write_text('{"format": 2, "shards": []}')
    for name, message in [
        ("cifar100", r"no data set and no path 'cifar100'; did you mean 'cifar10'\?$"),
        ("zzz", r"known are cifar10, digits, or give the path"),
        (str(tmp_path / "gone"), "There is no .*gone; give the path"),
        (str(tmp_path / "empty"), "empty holds no images"),
        (str(tmp_path / "file.txt"), "file.txt is a file; give"),
        (str(tmp_path / "shards"), "holds shards already"),
        ("", "no data set"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            open_source(name)
        assert "\n" not in str(raised.value)
    assert (open_source("digits", "training").split, open_source("cifar10", "Testing").split) == (
        "train",
        "test",
    )
    with pytest.raises(UserError, match="digits has no split 'test'"):
        open_source("digits", "test")
    with pytest.raises(UserError, match="cifar10 has no split 'tests'; did you mean 'test'"):
        open_source("cifar10", "tests")


def test_cut_pieces():
    assert cut_pieces([("a", 5), ("b", 0), ("c", 4)], 3) == [
        (("a", 0, 3),),
        (("a", 3, 5), ("c", 0, 1)),
        (("c", 1, 4),),
    ]
    assert cut_pieces([], 3) == []
