"""Folders of splits: what is a split, what is a class, and what is refused; alike in folders and archives."""

import pytest

from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.trees import left, opened, seen

CAT_AND_DOG = {"{}/cat/a.png": 0, "{}/dog/a.png": 1, "{}/dog/b.png": 2}


def split_of(name, first=0):
    """The files of a split of two classes; the images are `first`, cat, and the next two, dogs."""
    return {path.format(name): number + first for path, number in CAT_AND_DOG.items()}


@pytest.fixture(params=["folder", "zip"])
def form(request):
    return request.param


@pytest.mark.parametrize(
    ("train", "test", "asked", "word"),
    [
        ("train", "test", "", "train"),
        ("train", "test", "train", "train"),
        ("TRAIN", "Test", "", "train"),
        ("training_set", "imgs-val", "", "training"),
        ("training_set", "imgs-val", "train", "training"),
        ("seg_train", "seg_test", "TRAIN", "train"),
        ("train2017", "val2017", "", "train"),
        ("split=train", "split=test", "", "train"),
    ],
)
def test_the_split_for_training(form, tmp_path, train, test, asked, word):
    source = opened(form, tmp_path, split_of(train) | split_of(test, 10), asked)
    assert seen(source) == {0: "cat", 1: "dog", 2: "dog"}
    assert (source.class_names, source.split, source.name) == (("cat", "dog"), word, f"set-{word}")


@pytest.mark.parametrize("asked", ["val", "valid", "validation", "dev", "Val"])
@pytest.mark.parametrize("name", ["val", "Valid", "validation", "imgs-dev"])
def test_another_split_by_any_of_its_words(form, tmp_path, name, asked):
    files = split_of("train") | split_of(name, 10) | split_of("test", 20)
    source = opened(form, tmp_path, files, asked)
    assert seen(source) == {10: "cat", 11: "dog", 12: "dog"}
    assert left(source)[0].startswith("2 other splits (test, train): ")


def test_a_split_that_is_not_there(form, tmp_path):
    with pytest.raises(UserError, match=r"has no split 'banana'; known are test, train\.$"):
        opened(form, tmp_path, split_of("train") | split_of("test", 10), "banana")


@pytest.mark.parametrize("files", [split_of("."), {"a.png": 0, "b.png": 1}])
def test_a_split_of_data_without_splits(form, tmp_path, files):
    files = {name.removeprefix("./"): value for name, value in files.items()}
    for asked in ("train", "test", "banana"):
        with pytest.raises(UserError, match=f"has no split '{asked}', since it is not divided into splits"):
            opened(form, tmp_path / asked, files, asked)


def test_folders_of_systems_and_folders_without_images_do_not_count(form, tmp_path):
    extra = {
        "__MACOSX/train/cat/._a.png": b"junk",
        "__MACOSX/notes.png": 99,
        ".cache/x.png": 98,
        "@eaDir/x.png": 97,
        "docs/readme.txt": "x",
        "empty/": "",
        "readme.md": "x",
    }
    source = opened(form, tmp_path, split_of("train") | split_of("test", 10) | extra)
    assert seen(source) == {0: "cat", 1: "dog", 2: "dog"}
    assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize("vehicle", ["train", "Test", "bullet_train"])
def test_a_class_whose_name_is_a_split_word(form, tmp_path, vehicle):
    files = {f"{vehicle}/a.png": 0, "bus/a.png": 1, "car/a.png": 2}
    assert seen(opened(form, tmp_path, files)) == {0: vehicle, 1: "bus", 2: "car"}
    with pytest.raises(UserError, match="has no split 'train'"):
        opened(form, tmp_path / "asked", files, "train")


def test_classes_that_end_with_the_same_split_word(form, tmp_path):
    files = {"bullet_train/a.png": 0, "freight_train/a.png": 1}
    assert seen(opened(form, tmp_path, files)) == {0: "bullet_train", 1: "freight_train"}


def test_classes_with_folders_inside_beside_one_called_train(form, tmp_path):
    files = {"train/steam/a.png": 0, "train/maglev/a.png": 1, "bus/city/a.png": 2, "bus/school/a.png": 3}
    assert seen(opened(form, tmp_path, files)) == {0: "train", 1: "train", 2: "bus", 3: "bus"}


def test_a_word_inside_a_word_is_no_split(form, tmp_path):
    files = {"contest/a.png": 0, "latest/a.png": 1, "trains/a.png": 2}
    assert seen(opened(form, tmp_path, files)) == {0: "contest", 1: "latest", 2: "trains"}


@pytest.mark.parametrize("name", ["test", "train", "Validation"])
def test_the_only_split_is_the_default(form, tmp_path, name):
    source = opened(form, tmp_path, split_of(name))
    assert seen(source) == {0: "cat", 1: "dog", 2: "dog"}
    assert source.split == name.lower()


def test_no_split_for_training_among_several(form, tmp_path):
    with pytest.raises(UserError, match="has the splits test, val, and none is for training; choose one"):
        opened(form, tmp_path, split_of("val") | split_of("test", 10))


@pytest.mark.parametrize(
    ("known", "extra"),
    [
        (("test", "train"), "extra/cat/x.png"),
        (("test", "train"), "extra/x.png"),
        (("test", "train"), "unlabeled/1/x.png"),
        (("train",), "extra/cat/x.png"),  # the same classes
        (("train",), "extra/x.png"),  # no classes
    ],
)
def test_known_and_unknown_splits(form, tmp_path, known, extra):
    files = {path: value for at, name in enumerate(known) for path, value in split_of(name, 10 * at).items()}
    files |= {extra: 50}
    name, first = extra.split("/")[0], 10 * known.index("train")
    with pytest.raises(
        UserError, match=rf"holds splits \({', '.join(known)}\) and .* \({name}\); choose one"
    ):
        opened(form, tmp_path, files)
    wanted = {first: "cat", first + 1: "dog", first + 2: "dog"}
    assert seen(opened(form, tmp_path / "asked", files, "train")) == wanted
    assert list(seen(opened(form, tmp_path / "other", files, name))) == [50]


def test_pieces_of_a_split_are_refused(form, tmp_path):
    for names in (("train1", "train2"), ("train_1", "train_2", "test"), ("Train", "train", "test")):
        files = {f"{name}/a.png": number for number, name in enumerate(names)}
        with pytest.raises(UserError, match=r"several folders of the split train \((Train|train_?1), train"):
            opened(form, tmp_path / "-".join(names), files)


def test_images_beside_splits_are_left_out_and_said(form, tmp_path):
    source = opened(form, tmp_path, split_of("train") | split_of("test", 10) | {"banner.png": 99})
    assert seen(source) == {0: "cat", 1: "dog", 2: "dog"}
    assert "1 images beside the folders of splits: in no split" in left(source)


def test_images_beside_one_folder_are_not_left_out(form, tmp_path):
    with pytest.raises(UserError, match=r"both directly \(a.png\) and in the sub-folder 'test'"):
        opened(form, tmp_path, {"a.png": 0, "test/a.png": 1})


def test_splits_inside_of_classes(form, tmp_path):
    files = {"cat/train/a.png": 0, "cat/test/a.png": 1, "dog/Train/a.png": 2, "dog/Test/a.png": 3}
    assert seen(opened(form, tmp_path, files)) == {0: "cat", 2: "dog"}
    source = opened(form, tmp_path / "test", files, "test")
    assert (seen(source), source.split) == ({1: "cat", 3: "dog"}, "test")
    with pytest.raises(UserError, match="dog has no split 'val', but other classes do"):
        opened(form, tmp_path / "val", files | {"cat/val/a.png": 4}, "val")
    with pytest.raises(UserError, match="holds splits in cat, but none in eel"):
        opened(form, tmp_path / "eel", files | {"eel/a.png": 4})


def test_a_class_that_holds_a_folder_of_trains(form, tmp_path):
    files = {"rail/train/a.png": 0, "road/car/a.png": 1}
    assert seen(opened(form, tmp_path, files)) == {0: "rail", 1: "road"}


def test_splits_beside_masks_in_classes(form, tmp_path):
    files = {f"{name}/{folder}/a.png": 10 * i + j for i, name in enumerate(("bolt", "nut"))
             for j, folder in enumerate(("train", "test", "ground_truth"))}  # fmt: skip
    with pytest.raises(
        UserError, match=r"bolt holds splits \(test, train\) and .* \(ground_truth\); choose one"
    ):
        opened(form, tmp_path, files)
    assert seen(opened(form, tmp_path / "test", files, "test")) == {1: "bolt", 11: "nut"}


def test_folders_that_could_be_splits_or_classes(form, tmp_path):
    files = {"bullet_train/a.png": 0, "crash_test/a.png": 1}
    with pytest.raises(
        UserError, match=r"\(bullet_train, crash_test\) that could be splits or classes; choose"
    ):
        opened(form, tmp_path, files)
    assert seen(opened(form, tmp_path / "test", files, "test")) == {1: None}
    for names in (
        ("train", "test"),
        ("train_images", "test"),
        ("cifar-train", "cifar-test"),
        ("TRAIN1", "test2"),
    ):
        files = {f"{name}/a.png": number for number, name in enumerate(names)}
        assert seen(opened(form, tmp_path / names[0], files)) == {0: None}


def test_folders_of_images_beside_folders_of_masks(form, tmp_path):
    files = {"images/cat/a.png": 1, "images/dog/a.png": 2, "masks/cat/a.png": 3}
    with pytest.raises(
        UserError, match="'images' and 'masks' lie side by side, and are hardly classes; give"
    ):
        opened(form, tmp_path, files)
    files = {"images/train/a.png": 1, "images/val/b.png": 2, "labels/train/a.txt": "0 1 1 2 2"}
    assert seen(opened(form, tmp_path / "boxes", files)) == {1: None}


def test_wrapped_splits(form, tmp_path):
    files = {f"seg/pictures/{path}": number for path, number in split_of("train/train").items()}
    files |= {f"seg/pictures/{path}": number for path, number in split_of("test/test", 10).items()}
    assert seen(opened(form, tmp_path, files)) == {0: "cat", 1: "dog", 2: "dog"}
    assert seen(opened(form, tmp_path / "test", files, "test")) == {10: "cat", 11: "dog", 12: "dog"}


def test_splits_inside_of_a_split(form, tmp_path):
    files = split_of("train/train") | split_of("train/val", 10) | split_of("test", 20)
    with pytest.raises(UserError, match=r"belongs to the split train and holds splits again \(train, val\)"):
        opened(form, tmp_path, files)


def test_a_path_whose_own_name_is_the_split(tmp_path):
    opened("folder", tmp_path, split_of("train") | split_of("test", 10))
    inside = str(tmp_path / "set" / "train")
    assert (
        seen(open_source(inside)) == seen(open_source(inside, "training")) == {0: "cat", 1: "dog", 2: "dog"}
    )
    with pytest.raises(UserError, match="train has no split 'test'"):
        open_source(inside, "test")


def test_splits_by_the_names_of_files(form, tmp_path):
    files = {"train_1.png": 1, "TRAIN_2.png": 2, "x-test.png": 3, "readme.txt": "x"}
    source = opened(form, tmp_path, files)
    assert (seen(source), source.split) == ({1: None, 2: None}, "train")
    assert left(source)[0] == "1 other split (test): the split train is read"
    assert seen(opened(form, tmp_path / "test", files, "testing")) == {3: None}
    with pytest.raises(UserError, match="has no split 'val'; known are test, train"):
        opened(form, tmp_path / "val", files, "val")
    for name, other in [("one", {"x.png": 4}), ("two", {"x-test.png": 3, "test.png": 5})]:
        rest = {"train_1.png": 1} if name == "one" else {}
        source = opened(form, tmp_path / name, {**rest, **other})
        assert (seen(source), source.split) == (dict.fromkeys(sorted([*rest.values(), *other.values()])), "")


def test_splits_by_the_names_of_files_in_classes(form, tmp_path):
    files = {"a/train-1.png": 1, "a/test-2.png": 2, "b/train-3.png": 3}
    assert seen(opened(form, tmp_path, files)) == {1: "a", 3: "b"}
    assert seen(opened(form, tmp_path / "test", files, "test")) == {2: "a"}
    tubes = {"vehicles/train-1.png": 1, "glass/test-2.png": 2, "tools/test-3.png": 3}
    assert seen(opened(form, tmp_path / "tubes", tubes)) == {1: "vehicles", 2: "glass", 3: "tools"}
