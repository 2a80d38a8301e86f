"""Parquet and .npz files of splits, and of folders that give labels."""

import numpy as np
import pytest

from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.test_sources import write_parquet
from tests.data.trees import image_bytes, left, plant, seen

HASH = "0123456789abcdef"


def tables(root, files):
    """Write Parquet files {path: numbers of images}; the label of each image is its number modulo 3."""
    for path, numbers in files.items():
        write_parquet(root / path, [image_bytes(number) for number in numbers], [n % 3 for n in numbers])
    return str(root)


def numbers(source):
    assert all(label == number % 3 for number, label in seen(source).items())
    return list(seen(source))


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        (f"data/train-00000-of-00001-{HASH}.parquet", f"data/valid-00000-of-00001-{HASH[::-1]}.parquet"),
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
        ("train-00000-of-00001.parquet", "dev-00000-of-00001.parquet"),
        ("train.parquet", "val.parquet"),
        ("cifar_train.parquet", "cifar_valid.PARQUET"),
        ("default/train/0000.parquet", "default/validation/0000.parquet"),
        ("plain_text/partial-train/0000.parquet", "plain_text/valid/0000.parquet"),
        ("split=train/a.parquet", "split=val/a.parquet"),
        ("Training/0.parquet", "Validation/0.parquet"),
    ],
)
def test_splits(tmp_path, train, valid):
    root = tables(tmp_path / "set", {train: range(6), valid: range(6, 9)})
    assert numbers(open_source(root)) == numbers(open_source(root, "train")) == list(range(6))
    source = open_source(root, "valid")
    assert numbers(source) == [6, 7, 8]
    assert source.split in valid.lower()
    assert source.name == f"set-{source.split}"
    assert left(source)[-1].startswith("1 other split (train")
    with pytest.raises(UserError, match=r"has no split 'banana'; known are"):
        open_source(root, "banana")


def test_several_files_of_a_split(tmp_path):
    files = {f"data/train-{i:05d}-of-00002-{HASH}.parquet": range(3 * i, 3 * i + 3) for i in range(2)}
    root = tables(tmp_path, files | {f"data/test-00000-of-00001-{HASH}.parquet": [20]})
    assert numbers(open_source(root)) == list(range(6))
    assert numbers(open_source(root, "test")) == [20]


def test_files_without_split_words_are_one_data_set(tmp_path):
    root = tables(tmp_path / "set", {"contest.parquet": [0, 1], "latest.parquet": [2]})
    source = open_source(root)
    assert (numbers(source), source.split, source.name) == ([0, 1, 2], "", "set")
    with pytest.raises(UserError, match="has no split 'test', since it is not divided into splits"):
        open_source(root, "test")


def test_known_and_unknown_names(tmp_path):
    root = tables(tmp_path, {"train.parquet": [0], "contest.parquet": [1]})
    for asked in ("", "train"):
        with pytest.raises(UserError, match="files of the splits train, and contest of none; move it away"):
            open_source(root, asked)


def test_a_split_of_any_name_on_the_hub(tmp_path):
    files = {f"data/{name}-00000-of-00001.parquet": [i] for i, name in enumerate(("extra", "test", "train"))}
    root = tables(tmp_path, files)
    with pytest.raises(
        UserError, match=r"of the splits test, train, and extra-0.* of none; choose one of them"
    ):
        open_source(root)
    assert [numbers(open_source(root, name)) for name in ("extra", "train")] == [[0], [2]]


def test_hub_names_with_one_word_are_told_apart(tmp_path):
    names = ("test_matched", "test_mismatched", "train")
    root = tables(tmp_path, {f"{name}-00000-of-00001.parquet": [i] for i, name in enumerate(names)})
    assert numbers(open_source(root, "test_mismatched")) == [1]
    with pytest.raises(
        UserError, match="has no split 'test'; known are test_matched, test_mismatched, train"
    ):
        open_source(root, "test")


def test_the_only_split_is_the_default(tmp_path):
    root = tables(tmp_path, {"test-00000-of-00001.parquet": [1]})
    assert (numbers(open_source(root)), open_source(root).split) == ([1], "test")
    with pytest.raises(UserError, match="has no split 'train'"):
        open_source(root, "train")


def test_one_file_has_the_split_of_its_name(tmp_path):
    tables(tmp_path, {"cifar_train.parquet": [0], "contest.parquet": [1]})
    source = open_source(str(tmp_path / "cifar_train.parquet"), "training")
    assert (numbers(source), source.split) == ([0], "train")
    for name, asked in [("cifar_train", "test"), ("contest", "test"), ("contest", "train")]:
        with pytest.raises(UserError, match=f"{name}.parquet has no split '{asked}'"):
            open_source(str(tmp_path / f"{name}.parquet"), asked)


def test_content_tells_a_table_without_an_ending(tmp_path):
    tables(tmp_path, {"a.parquet": [4]})
    (tmp_path / "a.parquet").rename(tmp_path / "blob")
    assert numbers(open_source(str(tmp_path / "blob"))) == [4]


def test_npz_files_of_splits(tmp_path):
    for name, number in [("train", 1), ("val", 2)]:
        np.savez(tmp_path / f"{name}.npz", np.full((1, 4, 4, 3), number, np.uint8))
    assert seen(open_source(str(tmp_path))) == {1: None}
    assert seen(open_source(str(tmp_path), "valid")) == {2: None}
    assert seen(open_source(str(tmp_path / "val.npz"), "val")) == {2: None}
    with pytest.raises(UserError, match=r"val\.npz has no split 'train'"):
        open_source(str(tmp_path / "val.npz"), "train")
    (tmp_path / "val.npz").rename(tmp_path / "train_b.npz")
    with pytest.raises(UserError, match=r"several .npz files \(train.npz, train_b.npz\); give one of them"):
        open_source(str(tmp_path))


def hive(root, files):
    for path, numbers in files.items():
        write_parquet(root / path, [image_bytes(number) for number in numbers])
    return str(root)


def test_hive_folders_give_labels(tmp_path):
    files = {"label=10/a.parquet": [10, 11], "label=2/a.parquet": [2], "label=2/b.parquet": [3, 4, 5]}
    source = open_source(hive(tmp_path / "set", files))
    wanted = {2: "2", 3: "2", 4: "2", 5: "2", 10: "10", 11: "10"}
    for rows in (1, 3, 100):
        assert seen(source, rows=rows) == wanted
        assert [len(part.pieces) for part in source.parts(3)] == [2, 2]
    assert (source.class_names, source.layout) == (("2", "10"), "Parquet files in folders of classes")


def test_hive_folders_of_splits_and_names(tmp_path):
    files = {"split=train/class=a%2Fb/0.parquet": [0], "split=train/class=c/0.parquet": [1]}
    files |= {path.replace("=train", "=test"): [number + 9] for path, (number,) in files.items()}
    root = hive(tmp_path, files)
    assert seen(open_source(root)) == {0: "a/b", 1: "c"}
    assert seen(open_source(root, "test")) == {9: "a/b", 10: "c"}


def test_hive_folders_of_other_keys_are_one_data_set(tmp_path):
    root = tables(tmp_path, {"year=2020/a.parquet": [0, 1], "year=2021/a.parquet": [2]})
    assert numbers(open_source(root)) == [0, 1, 2]


def test_a_label_in_a_column_and_by_the_folder(tmp_path):
    root = tables(tmp_path, {"label=0/a.parquet": [0], "label=1/a.parquet": [1]})
    message = r"has labels in the column 'label' and others by its folders; name one by data.label_column"
    with pytest.raises(UserError, match=message):
        open_source(root)


def test_tables_in_several_folders(tmp_path):
    root = tables(tmp_path, {"en/a.parquet": [0], "de/a.parquet": [1]})
    with pytest.raises(UserError, match=r"holds tables in several folders \(de, en\); give one of them"):
        open_source(root)


def test_tables_beside_images(tmp_path):
    hub = tmp_path / "hub"
    tables(hub, {"data/train-00000-of-00001.parquet": [1]})
    plant(hub, {"assets/logo.png": 99, "README.md": "x"})
    assert numbers(open_source(str(hub))) == [1]
    other = tmp_path / "other"
    tables(other, {"notes/boxes.parquet": [1]})
    plant(other, {"images/a.png": 99})
    with pytest.raises(
        UserError, match=r"image files \(in images\) and tables \(in notes\); give one of these"
    ):
        open_source(str(other))


def test_a_table_among_images(tmp_path):
    root = tmp_path / "set"
    tables(root, {"labels.parquet": [1]})
    plant(root, {"cat/a.png": 50, "dog/a.png": 51})
    with pytest.raises(
        UserError, match=r"Parquet files \(labels.parquet\) and images \(cat\); give the path of"
    ):
        open_source(str(root))
    (root / "labels.parquet").rename(root / "metadata.parquet")  # captions, as the hub has them
    np.savez(root / "statistics.npz", mu=np.zeros(3))
    assert seen(open_source(str(root))) == {50: "cat", 51: "dog"}
    (root / "cat" / "a.png").rename(root / "a.png")
    (root / "dog" / "a.png").rename(root / "b.png")
    assert seen(open_source(str(root))) == {50: None, 51: None}


def test_names_that_are_not_utf_8(tmp_path):
    tables(tmp_path / "set", {"train.parquet": [1]})
    root = (tmp_path / "set").rename(tmp_path / "set\udcff")
    (root / "train.parquet").rename(root / "x\udcfe_train.parquet")
    source = open_source(str(root))
    assert (numbers(source), source.name) == ([1], r"set\xff-train")
    assert open_source(f"{root}/x\udcfe_train.parquet").name == r"x\xfe_train"


def test_shards_in_folders_of_splits(tmp_path):
    root = tables(tmp_path, {"train/shard-00000.parquet": [1], "test/shard-00000.parquet": [2]})
    (tmp_path / "train" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="train holds shards; give its own path"):
        open_source(root)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("label={}/train-0.parquet", "label={}/test-0.parquet"),
        ("label={}/split=train/0.parquet", "label={}/split=test/0.parquet"),
        ("split=train/label={}/0.parquet", "split=test/label={}/0.parquet"),
        ("label={}/year=1/Training/0.parquet", "label={}/year=1/Testing/0.parquet"),
    ],
)
def test_splits_and_labels_by_folders(tmp_path, train, test):
    files = {train.format(3): [0], train.format(1): [1], test.format(3): [2]}
    root = hive(tmp_path / "set", files)
    source = open_source(root)
    assert (seen(source), source.class_names) == ({0: "3", 1: "1"}, ("1", "3"))
    assert left(source)[-1].startswith("1 other split (test")
    source = open_source(root, "testing")
    assert (seen(source), source.class_names) == ({2: "3"}, ("3",)), "the only class has its label"
    assert (source.split.lower()[:4], source.name[:8]) == ("test", "set-test")
    with pytest.raises(UserError, match="has no split 'val'; known are"):
        open_source(root, "val")


def test_files_of_no_split_in_folders_of_classes(tmp_path):
    root = hive(tmp_path, {"label=3/train.parquet": [0], "label=1/contest.parquet": [1]})
    with pytest.raises(UserError, match="holds files of the splits train, and contest of none; move it away"):
        open_source(root)
