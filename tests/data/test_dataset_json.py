"""EDM's and StyleGAN's data sets: folders of numbered pieces and a dataset.json, also as archives."""

import json
import zipfile

import pytest

from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.trees import image_bytes, left, opened, seen, zipped

FILES = {f"{i // 2:05d}/img{i:08d}.png": i for i in range(6)}
LABELS = [[path, number % 3] for path, number in FILES.items()]


@pytest.fixture(params=["folder", "zip"])
def form(request):
    return request.param


def listed(labels, files=FILES, prefix=""):
    text = json.dumps({"labels": labels, "other": 1})
    return {prefix + path: value for path, value in (files | {"dataset.json": text}).items()}


def test_labels(form, tmp_path):
    source = opened(form, tmp_path, listed(LABELS))
    assert seen(source) == {number: number % 3 for number in range(6)}
    assert source.class_names == ()
    assert source.layout.startswith("image files with labels in dataset.json")
    assert source.left_out == ()


@pytest.mark.parametrize("files", [FILES, {path.split("/")[1]: number for path, number in FILES.items()}])
def test_no_labels(form, tmp_path, files):
    for name, wanted in [("null", listed(None, files)), ("none", files)]:
        source = opened(form, tmp_path / name, wanted)
        assert (seen(source), source.class_names) == (dict.fromkeys(range(6)), ())


def test_nested_and_flat_files_may_have_labels(form, tmp_path):
    files = {"a.png": 1, "x/b.png": 2, "x/y/c.jpg": image_bytes(3, "png")}
    labels = [["a.png", 5], ["x\\b.png", 6], ["x/y/c.jpg", 0]]  # one as Windows writes it
    assert seen(opened(form, tmp_path, listed(labels, files))) == {1: 5, 2: 6, 3: 0}


def test_below_a_common_folder_and_in_splits(form, tmp_path):
    wanted = {number: number % 3 for number in range(6)}
    assert seen(opened(form, tmp_path, listed(LABELS, prefix="sets/edm/"))) == wanted
    files = listed(LABELS, prefix="train/") | listed(None, {"a.png": 59}, prefix="test/")
    assert seen(opened(form, tmp_path / "splits", files)) == wanted
    assert seen(opened(form, tmp_path / "test", files, "test")) == {59: None}


def test_class_folders_with_a_list_have_the_labels_of_the_list(form, tmp_path):
    files = {"cat/a.png": 1, "dog/a.png": 2}
    assert seen(opened(form, tmp_path, listed([["cat/a.png", 7], ["dog/a.png", 3]], files))) == {1: 7, 2: 3}
    assert seen(opened(form, tmp_path / "null", listed(None, files))) == {1: None, 2: None}


def test_another_dataset_json_is_a_file_like_others(form, tmp_path):
    files = {"cat/a.png": 1, "dog/a.png": 2, "dataset.json": '{"title": "photos"}'}
    source = opened(form, tmp_path, files)
    assert seen(source) == {1: "cat", 2: "dog"}
    assert left(source) == ["1 files ending in .json: not images"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [["a.png", [0, 1, 0]]],
            r"of a.png in .*dataset.json is a vector, such as a one-hot vector; write an int",
        ),
        ([["a.png", 0.5]], "is a fraction; write an integer"),
        ([["a.png", 1.0]], "is a fraction; write an integer"),
        ([["a.png", True]], "is True; write an integer"),
        ([["a.png", "cat"]], "is 'cat'; write an integer"),
        ([["a.png", None]], "is None; write an integer"),
        ([["a.png", -1]], "is -1; write an integer"),
        ([["a.png", 10**30]], "is 1000000"),
        ([["a.png", 1], ["a.png", 2]], "has two labels for a.png; keep one"),
        ([["a.png"]], r"is not of the form \[file, class\]"),
        ([[3, 4]], r"is not of the form \[file, class\]"),
        ({"a.png": 1}, "are no list"),
        ([["b.png", 1]], "has no label for a.png; add it, or set labels to null"),
    ],
)
def test_labels_that_are_refused(form, tmp_path, labels, message):
    with pytest.raises(UserError, match=message) as raised:
        opened(form, tmp_path, listed(labels, {"a.png": 1}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_a_broken_list(form, tmp_path, text):
    with pytest.raises(UserError, match=r"dataset.json is not valid JSON \(.*\); restore it or remove it"):
        opened(form, tmp_path, {"a.png": 1, "dataset.json": text.encode("latin-1")})


def test_labels_without_images_are_said(form, tmp_path):
    source = opened(form, tmp_path, listed([*LABELS, ["00009/img00000099.png", 1]]))
    assert left(source) == ["1 labels in dataset.json: their images are not there"]


def test_another_label_makes_another_identity(form, tmp_path):
    other = [[path, 0] for path in FILES]
    first = opened(form, tmp_path / "a", listed(LABELS))
    assert opened(form, tmp_path / "b", listed(other)).identity() != first.identity()


def test_edm_writes_its_archives_without_compression(tmp_path):
    path = zipped(tmp_path / "edm.zip", listed(LABELS), zipfile.ZIP_STORED)
    assert seen(open_source(str(path))) == {number: number % 3 for number in range(6)}


@pytest.mark.parametrize(
    "files",
    [
        {"00000/00000_00000.png": 1, "00000/00000_00001.png": 2, "00001/00000_00000.png": 3},  # traffic signs
        {"0000045/001.png": 1, "0000045/002.png": 2, "0000099/001.png": 3},  # faces
        {"0/img00000000.png": 1, "0/img00000001.png": 2, "1/img00000002.png": 3},
        {"00000/a.png": 1, "00000/b.png": 2, "00001/c.png": 3},
    ],
)
def test_numbered_classes_are_classes(form, tmp_path, files):
    names = sorted({path.split("/")[0] for path in files})
    assert seen(opened(form, tmp_path, files)) == {1: names[0], 2: names[0], 3: names[1]}


@pytest.mark.parametrize("step", [2, 1000])
def test_other_numbered_pieces(form, tmp_path, step):
    files = {
        f"{folder * step:05d}/{folder * step + i:05d}.png": folder * 10 + i
        for folder in (0, 1)
        for i in (0, 1)
    }
    assert seen(opened(form, tmp_path, files)) == dict.fromkeys([0, 1, 10, 11])
