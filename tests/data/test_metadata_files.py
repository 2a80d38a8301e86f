"""Labels in the metadata.csv and metadata.jsonl of the hub's folders of images, as folders and archives."""

import json

import pytest

from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from tests.data.trees import left, opened, plant, seen


@pytest.fixture(params=["folder", "zip"])
def form(request):
    return request.param


def table(rows, ending="csv", name="file_name", label="label"):
    """The content of a file of metadata by its rows (path, label)."""
    if ending == "jsonl":
        return "".join(json.dumps({name: path, "more": [1], label: value}) + "\n" for path, value in rows)
    return "\ufeff" + "\r\n".join(f'{path},"a, b",{value}' for path, value in [(name, label), *rows]) + "\r\n"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_labels_of_each_split(form, ending, tmp_path):
    files = {"train/0.png": 0, "train/2.png": 2, "test/0.png": 9}
    files[f"train/metadata.{ending}"] = table([("0.png", "dog"), ("2.png", "cat"), ("7.png", "cow")], ending)
    files[f"test/metadata.{ending}"] = table([("0.png", "dog")], ending)
    source = opened(form, tmp_path, files)
    assert (seen(source), source.class_names) == ({0: "dog", 2: "cat"}, ("cat", "dog"))
    assert source.layout.startswith(f"image files with labels in metadata.{ending}")
    assert left(source)[1:] == [f"1 labels in metadata.{ending}: their images are not read"]
    source = opened(form, tmp_path / "test", files, "test")
    assert (seen(source), source.class_names) == ({9: "dog"}, ("dog",))


@pytest.mark.parametrize("label", ["label", "class", "Target"])
def test_numbers_are_names_in_the_order_of_numbers(form, label, tmp_path):
    rows = [("0.png", 10), ("1.png", 2), ("./2.png", 10)]
    for ending in ("csv", "jsonl"):
        files = {f"{i}.png": i for i in range(3)} | {f"metadata.{ending}": table(rows, ending, label=label)}
        source = opened(form, tmp_path / ending, files)
        assert (seen(source), source.class_names) == ({0: "10", 1: "2", 2: "10"}, ("2", "10"))


def test_paths_are_relative_to_the_file(form, tmp_path):
    rows = [("images/0.png", "cafe\u0301"), ("images\\1.png", "caf\u00e9")]
    files = {"images/0.png": 0, "images/1.png": 1, "metadata.jsonl": table(rows, "jsonl")}
    source = opened(form, tmp_path, files)
    assert (seen(source), source.class_names) == ({0: "caf\u00e9", 1: "caf\u00e9"}, ("caf\u00e9",))


def test_the_same_images_with_other_labels_are_others(tmp_path):
    plant(tmp_path, {"0.png": 0, "1.png": 1, "metadata.csv": table([("0.png", "a"), ("1.png", "b")])})
    before = load_images(tmp_path)
    plant(tmp_path, {"metadata.csv": table([("0.png", "b"), ("1.png", "a")])})
    after = load_images(tmp_path)
    assert sorted(before.labels.tolist()) == sorted(after.labels.tolist())
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    "text",
    [table([("0.png", "a cat")], label="text"), table([("0.png", "a")], name="path"), '\0\udcff"\r', ""],
)
def test_captions_and_other_tables_give_no_labels(form, text, tmp_path):
    source = opened(form, tmp_path, {"0.png": 0, "metadata.csv": text.encode(errors="surrogateescape")})
    assert seen(source) == {0: None}
    assert left(source) == ["1 files ending in .csv: not images"]


def test_class_folders_come_first(form, tmp_path):
    files = {"a/0.png": 0, "b/1.png": 1, "metadata.csv": table([("a/0.png", "x"), ("b/1.png", "x")])}
    assert seen(opened(form, tmp_path, files)) == {0: "a", 1: "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table([("0.png", "a")], "jsonl"), r"metadata.jsonl has no label for 1.png; add it, or remove"),
        (table([("0.png", "a"), ("0.png", "b")], "jsonl"), "has two labels for 0.png; keep one of them"),
        (
            table([("0.png", 0.5)], "jsonl"),
            r"the file_name '0.png' and the label 0.5; give each image a text",
        ),
        (table([("0.png", None)], "jsonl"), "the label None; give each image a text or an integer"),
        (table([("0.png", "a")], "jsonl") + "[1]", r"A line of .* is \[1\], not a group of entries"),
        (table([("0.png", "a")], "jsonl") + "{", "is not valid JSON"),
        ('{"file_name": "0.png", "target": 1, "class": 2}', r"labels \(target, class\); keep one of them"),
    ],
)
def test_what_is_not_clear_is_refused(form, text, message, tmp_path):
    with pytest.raises(UserError, match=message) as refused:
        opened(form, tmp_path, {"0.png": 0, "1.png": 1, "metadata.jsonl": text})
    assert "\n" not in str(refused.value)
