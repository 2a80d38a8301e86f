"""Arrays of .npz files: those of Keras, MedMNIST, downsampled ImageNet and others."""

import numpy as np
import pytest

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.archives import zip_bytes
from tests.data.making import make
from tests.data.trees import left, seen


def images(*numbers, shape=(4, 5, 3)):
    """An image of one level for each number, (n, *shape)."""
    found = np.empty((len(numbers), *shape), np.uint8)
    found[:] = np.reshape(numbers, (-1, *[1] * len(shape)))
    return found


def save(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return str(path)


def named(image="", label=""):
    return ReadOptions(image_column=image, label_column=label)


@pytest.mark.parametrize(
    ("x", "y"), [("x", "y"), ("images", "labels"), ("X", "Y"), ("data", "target"), ("a", "cls")]
)
def test_names_of_arrays(tmp_path, x, y):
    path = save(tmp_path / "x.npz", **{x: images(5, 6), y: np.array([1, 0]), "width": np.array([4, 4])})
    assert seen(open_source(path)) == {5: 1, 6: 0}
    assert open_source(path).layout == f"an .npz file with images in {x!r} and labels in {y!r}"
    assert left(open_source(path)) == ["1 arrays (width): neither images nor labels"]


def test_keras_files_have_splits(tmp_path):
    arrays = {
        "x_train": images(1, 2, 3, shape=(6, 7)),
        "y_train": np.array([0, 1, 2], np.uint8),
        "x_test": images(8, 9, shape=(6, 7)),
        "y_test": np.array([2, 1], np.uint8),
    }
    path = save(tmp_path / "mnist.npz", **arrays)
    for place in (path, str(tmp_path)):
        for split in ("", "train", "training"):
            assert seen(open_source(place, split)) == {1: 0, 2: 1, 3: 2}
        source = open_source(place, "test")
        assert (seen(source), source.split) == ({8: 2, 9: 1}, "test")
        assert left(source) == ["2 arrays (x_train, y_train): the split test is read"]
        with pytest.raises(UserError, match=r"has no split 'val'; known are test, train"):
            open_source(place, "val")
    assert load_images(path, split="test").images.shape == (2, 1, 6, 7)


def test_medmnist_files_have_three_splits_and_columns_of_labels(tmp_path):
    arrays = {}
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        arrays |= {f"{split}_images": images(number), f"{split}_labels": np.array([[number]], np.uint8)}
    path = save(tmp_path / "pathmnist.npz", **arrays)
    found = {split: seen(open_source(path, split)) for split in ("", "valid", "testing")}
    assert found == {"": {1: 1}, "valid": {2: 2}, "testing": {3: 3}}
    save(tmp_path / "b.npz", x_val=images(1), x_test=images(2))
    with pytest.raises(UserError, match="splits test, val, and none is for training; choose one with split"):
        open_source(str(tmp_path / "b.npz"))


def test_a_split_that_no_array_has_is_an_error(tmp_path):
    path = save(tmp_path / "x.npz", x=images(1), y=np.array([0]))
    for split in ("train", "test", "banana"):
        with pytest.raises(UserError, match=f"x.npz has no split '{split}', since it is not divided"):
            open_source(path, split)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 5), lambda x: x[..., None]),
        ((4, 5, 1), lambda x: x),
        ((4, 5, 3), lambda x: x),
        ((1, 4, 5), lambda x: x.transpose(0, 2, 3, 1)),
        ((3, 4, 5), lambda x: x.transpose(0, 2, 3, 1)),
    ],
)
def test_axes_that_are_clear(tmp_path, shape, axes):
    values = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    for name in ("arr_0", "images"):
        source = open_source(save(tmp_path / "x.npz", **{name: values}))
        for rows in (2, 5):
            batches = [batch for part in source.parts(rows) for batch in part.read(ReadOptions())]
            np.testing.assert_array_equal(np.concatenate([each.images for each in batches]), axes(values))


@pytest.mark.parametrize("shape", [(3, 4, 3), (1, 4, 3), (4, 3), (6, 5, 2), (4, 5, 4), (4, 5, 3, 1)])
def test_axes_that_are_not_clear_or_no_images(tmp_path, shape):
    path = save(tmp_path / "x.npz", images=images(*range(5), shape=shape))
    with pytest.raises(UserError, match=r"is not clear; give|drop the transp|1 or 3 ch|no array of"):
        open_source(path)


def planes_of(folder, batches, side=8, first=1):
    """Files as those of downsampled ImageNet: planes of red, green and blue, of one level each."""
    for name, numbers in batches.items():
        data = np.empty((len(numbers), 3, side * side), np.uint8)
        for plane, level in enumerate((numbers, 100, 200)):
            data[:, plane] = np.reshape(level, (-1, 1))
        labels = np.array(numbers) % 3 + first
        save(folder / f"{name}.npz", data=data.reshape(len(numbers), -1), labels=labels, mean=np.zeros(192))
    return str(folder)


BATCHES = {f"train_data_batch_{i}": range(3 * i, 3 * i + 3) for i in range(1, 11)} | {"val_data": [40, 41]}


def test_downsampled_imagenet(tmp_path):
    source = open_source(planes_of(tmp_path, BATCHES))
    assert seen(source) == {number: str(number % 3 + 1) for number in range(3, 33)}
    assert source.class_names == ("1", "2", "3")
    assert source.layout == (
        "10 .npz files with images in 'data' as rows of planes and labels in 'labels', which begin with 1"
    )
    assert left(source)[0] == "1 other split (val): the split train is read"
    (part,) = source.parts(100)
    batches = list(part.read(ReadOptions()))
    pixels = np.concatenate([batch.images for batch in batches])
    assert pixels.shape[1:] == (8, 8, 3)
    assert pixels[:, 0, 0].tolist() == [[number, 100, 200] for number in range(3, 33)], "in their order"
    assert [label for batch in batches for label in batch.labels] == [number % 3 for number in range(3, 33)]
    assert seen(open_source(str(tmp_path), "val")) == {40: "2", 41: "3"}
    manifest = make(source, tmp_path / "out", 7)
    assert (manifest.class_names, manifest.class_counts) == (("1", "2", "3"), (10, 10, 10))


def test_planes_whose_labels_begin_with_0(tmp_path):
    source = open_source(planes_of(tmp_path, {"batch_1": range(6)}, first=0))
    assert seen(source) == {number: number % 3 for number in range(6)}
    assert "begin with" not in source.layout


def test_rows_of_planes_are_only_read_by_their_name(tmp_path):
    path = save(tmp_path / "x.npz", arr_0=images(1, 2).reshape(2, -1))
    with pytest.raises(UserError, match=r"The shape of arr_0 of .* is \(2, 60\); give"):
        open_source(path)


def test_labels_from_one_are_not_moved_elsewhere(tmp_path):
    path = save(tmp_path / "x.npz", arr_0=images(1, 2, 3), arr_1=np.array([1, 2, 4]))
    found = load_images(path)
    assert (found.labels.tolist(), found.class_names) == ([1, 2, 4], tuple("01234"))
    assert found.class_counts == (0, 1, 1, 0, 1)


def test_names_of_classes_and_texts(tmp_path):
    path = save(
        tmp_path / "a.npz", x=images(1, 2), y=np.array([1, 0]), class_names=np.array(["zebra", "ant", "é"])
    )
    assert seen(open_source(path)) == {1: "ant", 2: "zebra"}
    for kind in (str, bytes):
        texts = np.array(["b", "10", "a"] if kind is str else [b"b", b"10", b"a"])
        source = open_source(save(tmp_path / "b.npz", x=images(1, 2, 3), labels=texts))
        assert (seen(source), source.class_names) == ({1: "b", 2: "10", 3: "a"}, ("10", "a", "b"))
    path = save(tmp_path / "c.npz", x=images(1, 2), y=np.array([1, 0]), class_names=np.array(["a"]))
    with pytest.raises(UserError, match="has the label 1 but names only 1 classes"):
        load_images(path)


def test_pickled_arrays_beside_images_are_left_out(tmp_path):
    path = save(tmp_path / "x.npz", x=images(1, 2), y=np.array([1, 0]), classes=np.array(["a", "b"], object))
    with pytest.raises(UserError, match=r"has several arrays of labels \(y, classes\)"):
        open_source(path)
    assert seen(open_source(path, options=named(label="y"))) == {1: 1, 2: 0}
    path = save(tmp_path / "y.npz", x=images(1), y=np.array([1]), meta=np.array([{}], object))
    assert left(open_source(path)) == ["1 arrays (meta): neither images nor labels"]


def test_arrays_that_are_named_by_settings(tmp_path):
    path = save(
        tmp_path / "x.npz",
        **{"low": images(1, 2), "high": images(7, 8, shape=(6, 6, 1))},
        **{"fine": np.array([4, 5]), "y": np.array([0, 1])},
    )
    with pytest.raises(UserError, match=r"several arrays of images \(low, high\); name one by data"):
        open_source(path)
    assert seen(open_source(path, options=named("high", "fine"))) == {7: 4, 8: 5}
    assert seen(open_source(path, options=named("low", "none"))) == {1: None, 2: None}
    assert (
        open_source(path, options=named("low")).identity()
        != open_source(path, options=named("high")).identity()
    )
    with pytest.raises(UserError, match=r"has no array 'hihg', which data.image_column names; did you mean"):
        open_source(path, options=named("hihg"))
    with pytest.raises(UserError, match=r"has no array 'z', which data.label_column names"):
        open_source(path, options=named("low", "z"))


def test_files_of_one_data_set_are_alike(tmp_path):
    save(tmp_path / "a_1.npz", x=images(1), y=np.array([0]))
    save(tmp_path / "a_10.npz", x=images(3), y=np.array([0]))
    save(tmp_path / "a_2.npz", x=images(2), y=np.array([0]))
    source = open_source(str(tmp_path))
    assert [file.rsplit("/", 1)[1] for file, _ in source.files] == ["a_1.npz", "a_2.npz", "a_10.npz"]
    assert [len(part.pieces) for part in source.parts(2)] == [2, 1]
    for arrays, message in [
        ({"x": images(2)}, "has no array 'y', which other files have; give them as two data sets"),
        (
            {"x": images(2, shape=(9, 9, 3)), "y": np.array([0])},
            r"\(1, 9, 9, 3\), unlike that of other files",
        ),
    ]:
        save(tmp_path / "a_2.npz", **arrays)
        with pytest.raises(UserError, match=message):
            open_source(str(tmp_path))


def test_sizes_that_are_lies_allocate_nothing(tmp_path):
    """The header of an array says that it holds 2^40 images."""
    path = tmp_path / "x.npz"
    save(path, arr_0=images(1, shape=(400, 500, 3)))
    truth, lie = b"(1, 400, 500, 3), }", b"(%d, 400, 500, 3), }" % 2**40
    content = path.read_bytes()
    path.write_bytes(content.replace(truth + b" " * (len(lie) - len(truth)), lie))
    assert path.stat().st_size == len(content)
    with pytest.raises(UserError, match=r"is not a whole .npz file \(arr_0.npy ends too early\)"):
        open_source(str(path))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_images_of_other_numbers_are_named(tmp_path, dtype):
    path = save(tmp_path / "a.npz", images=np.zeros((3, 8, 8, 3), dtype))
    with pytest.raises(UserError, match=f"images of .* is {np.dtype(dtype)}, and images are read as"):
        open_source(str(path))


@pytest.mark.parametrize("shape", [(10**30, 4, 4, 3), (-3, 4, 4, 3), (3, 2**62, 4, 3)])
def test_shapes_that_no_array_has(tmp_path, shape):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(100)
    (tmp_path / "x.npz").write_bytes(zip_bytes({"images.npy": array}))
    with pytest.raises(UserError, match=r"not a whole .npz file .an array has an impossible shape"):
        open_source(str(tmp_path / "x.npz"))


def test_labels_beyond_64_bits_do_not_become_missing_ones(tmp_path):
    path = save(tmp_path / "x.npz", x=images(1, 2), y=np.full(2, 2**64 - 1, np.uint64))
    with pytest.raises(UserError, match="has the label 9223372036854775807, and there may be at most"):
        load_images(path)
