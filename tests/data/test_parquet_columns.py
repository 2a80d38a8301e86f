"""Columns of Parquet files: which are images and labels, and which numbers and names the labels become."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm_ray.data.interface.columns import LABEL_WORDS
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest
from cm_ray.errors import UserError
from tests.data.making import make
from tests.data.trees import image_bytes, left, plant, seen

IMAGES = [image_bytes(number) for number in range(4)]


def write(path, **columns):
    """Write a table of four images, or of the columns that are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": IMAGES, **columns} if "image" not in columns else columns), path)
    return str(path)


def named(image="", label=""):
    return ReadOptions(image_column=image, label_column=label)


def labels(path, **columns):
    """The class of each image."""
    return list(seen(open_source(path, options=named(**columns))).values())


@pytest.mark.parametrize("name", [*LABEL_WORDS, "Label", "CLASS", "Fine_Label"])
def test_the_only_column_with_such_a_name_has_the_labels(tmp_path, name):
    path = write(tmp_path / "x.parquet", **{name: [3, 1, 0, 1], "width": [4] * 4, "caption": ["a"] * 4})
    assert labels(path) == [3, 1, 0, 1]
    assert open_source(path).layout == f"a Parquet file with images in 'image' and labels in {name!r}"
    assert load_images(path).labels.tolist() == [3, 1, 0, 1]


def test_cifar_100_has_fine_labels_and_coarse_ones(tmp_path):
    path = write(tmp_path / "x.parquet", coarse_label=[0, 0, 1, 1], fine_label=[3, 2, 1, 0])
    assert labels(path) == [3, 2, 1, 0]
    assert left(open_source(path)) == ["1 columns (coarse_label): the labels are 'fine_label'"]
    assert labels(path, label="coarse_label") == [0, 0, 1, 1]
    assert load_images(path, label_column="coarse_label").class_names == ("0", "1")


def test_a_column_called_label_comes_before_others(tmp_path):
    path = write(tmp_path / "x.parquet", target=[9, 9, 9, 9], label=[0, 1, 0, 1])
    assert labels(path) == [0, 1, 0, 1]
    assert left(open_source(path)) == ["1 columns (target): the labels are 'label'"]


def test_several_columns_of_labels_are_named(tmp_path):
    path = write(tmp_path / "x.parquet", target=[9, 8, 7, 6], category=["b", "a", "b", "a"])
    with pytest.raises(UserError) as raised:
        open_source(path)
    assert str(raised.value) == (
        f"{path} has several columns of labels (target, category); name one by data.label_column, or by "
        "--label-column of cm-ray shards."
    )
    assert labels(path, label="target") == [9, 8, 7, 6]
    assert labels(path, label="category") == ["b", "a", "b", "a"]
    assert labels(path, label="none") == [None] * 4
    assert open_source(path, options=named(label="none")).layout.endswith(", without labels")
    with pytest.raises(
        UserError, match=r"no column 'targt', which data.label_column names; did you mean 'ta"
    ):
        open_source(path, options=named(label="targt"))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["dog", "cat", "dog", "ant"], ("ant", "cat", "dog")),
        (["10", "9", "1", "9"], ("1", "9", "10")),
        (["10", "9", "a", "9"], ("10", "9", "a")),
        ([True, False, True, True], ("false", "true")),
        (pa.array(["b", "a", "b", "b"]).dictionary_encode(), ("a", "b")),
        (pa.array(["b", "a", "b", "b"], pa.large_string()), ("a", "b")),
        (pa.array(["b", "a", "b", "b"], pa.string_view()), ("a", "b")),
    ],
)
def test_texts_are_classes_in_their_order(tmp_path, values, names):
    path = write(tmp_path / "x.parquet", label=values)
    plain = pa.array(values).cast(pa.large_string()).to_pylist()
    assert labels(path) == plain
    images = load_images(path)
    assert images.class_names == names
    assert images.labels.tolist() == [names.index(value) for value in plain]
    assert images.class_counts == tuple(plain.count(name) for name in names)


def test_texts_of_several_files_are_numbered_together(tmp_path):
    write(tmp_path / "a.parquet", label=["cat", "cat", "eel", "eel"])
    write(
        tmp_path / "b.parquet",
        image=[image_bytes(n) for n in range(4, 8)],
        label=["dog", "ant", "cat", "dog"],
    )
    source = open_source(str(tmp_path))
    assert source.class_names == ("ant", "cat", "dog", "eel")
    assert list(seen(source).values()) == ["cat", "cat", "eel", "eel", "dog", "ant", "cat", "dog"]
    make(source, tmp_path / "out", 3)
    assert Manifest.load(tmp_path / "out").class_counts == (1, 3, 2, 2)


def test_names_of_classes_from_the_hub(tmp_path):
    features = {"target": {"names": ["zebra", "ant"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": IMAGES, "target": [1, 0, 0, 0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet")
    assert labels(str(tmp_path / "x.parquet")) == ["ant", "zebra", "zebra", "zebra"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0.0, 1.0, 2.0, 3.0]}, "The column 'label' of .* is double, neither integers nor texts"),
        (
            {"labels": [[0], [1], [0], [1]]},
            r"The column 'labels' of .* is list<.*>, neither integers nor texts",
        ),
        ({"image": [[[1]]] * 4}, "The column 'image' of .* is list<.*>, not the bytes of image"),
        ({"image": [1, 2, 3, 4]}, "The column 'image' of .* is int64, not the bytes of image files"),
        ({"image": pa.nulls(4), "x": [1] * 4}, r"no column of images \(its columns: x\); name one by data"),
    ],
)
def test_columns_that_cannot_be_read(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        open_source(write(tmp_path / "x.parquet", **columns))


def test_labels_that_cannot_be_read_may_be_left_out(tmp_path):
    path = write(tmp_path / "x.parquet", labels=[[0, 1]] * 4)
    assert labels(path, label="none") == [None] * 4
    with pytest.raises(UserError, match=r"'labels' of .* is list"):
        open_source(path, options=named(label="labels"))


def test_a_column_of_nulls_is_no_column(tmp_path):
    path = write(tmp_path / "x.parquet", label=pa.nulls(4), target=[0, 1, 2, 3])
    assert labels(path) == [0, 1, 2, 3]


def test_images_are_found_by_names_and_kinds(tmp_path):
    masks = [{"bytes": image_bytes(99), "path": None}] * 4
    structs = [{"bytes": image, "path": "x.png"} for image in IMAGES]
    for number, columns in enumerate(
        [
            {"image": structs, "mask": masks},
            {"mask": masks, "IMG": structs},
            {"content": IMAGES},
            {"photo": pa.array(IMAGES, pa.large_binary()), "embedding": [b"0"] * 4},
            {"jpg": pa.array(IMAGES, pa.binary_view()), "__key__": ["0"] * 4, "cls": [0] * 4},
        ]
    ):
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
        assert list(seen(open_source(str(tmp_path / f"{number}.parquet")))) == [0, 1, 2, 3]
    path = str(tmp_path / "two.parquet")
    pq.write_table(pa.table({"before": IMAGES, "after": [image_bytes(n) for n in range(4, 8)]}), path)
    with pytest.raises(
        UserError, match=r"several columns of images \(before, after\); name one by data.image_c"
    ):
        open_source(path)
    assert list(seen(open_source(path, options=named(image="after")))) == [4, 5, 6, 7]
    with pytest.raises(
        UserError, match=r"no column 'afer', which data.image_column names; did you mean 'after'"
    ):
        open_source(path, options=named(image="afer"))


def test_files_of_other_columns(tmp_path):
    write(tmp_path / "a.parquet", label=[0, 1, 0, 1])
    write(tmp_path / "b.parquet", target=[0, 1, 0, 1])
    with pytest.raises(
        UserError, match=r"b.parquet has no column 'label', which other files of the data have"
    ):
        open_source(str(tmp_path))
    write(tmp_path / "b.parquet", label=["0", "1", "0", "1"])
    with pytest.raises(UserError, match=r"'label' holds texts in some files and not in .*b.parquet"):
        open_source(str(tmp_path))


def test_rows_without_an_image_or_a_label(tmp_path):
    images = [{"bytes": image, "path": None} for image in IMAGES[:3]]
    for column in ([0, None, 2, 0], ["a", None, "c", "a"]):
        path = write(tmp_path / "x.parquet", image=[*images, None], label=column)
        with pytest.raises(
            UserError, match=r"x.parquet row 1 has no label; complete or remove it, or set on_bad"
        ):
            seen(open_source(path))
        found = load_images(path, on_bad_image="skip")
        assert (found.labels.tolist(), found.skipped) == ([0, len(set(found.class_names)) - 1], 2)
    path = write(tmp_path / "y.parquet", image=[*images, {"bytes": None, "path": None}])
    with pytest.raises(UserError, match=r"y.parquet row 3 has no image; complete or remove it"):
        seen(open_source(path))
    assert list(seen(open_source(path), on_bad_image="skip")) == [0, 1, 2]


def test_folders_of_partitions_may_be_the_labels(tmp_path):
    for number, breed in enumerate(["husky", "corgi"]):
        pq.write_table(
            pa.table({"image": IMAGES[number : number + 1], "label": [number], "age": [number + 5]}),
            plant(tmp_path, {f"breed={breed}/": ""}) / f"breed={breed}" / "0.parquet",
        )
    assert labels(str(tmp_path)) == [0, 1]
    assert seen(open_source(str(tmp_path), options=named(label="breed"))) == {0: "husky", 1: "corgi"}
    assert seen(open_source(str(tmp_path), options=named(label="age"))) == {0: 5, 1: 6}


def test_other_data_has_no_columns(tmp_path):
    plant(tmp_path, {"cat/1.png": 1, "dog/2.png": 2})
    for path in (str(tmp_path), "digits"):
        with pytest.raises(
            UserError, match=r"has no columns, but data.image_column or data.label_column names one"
        ):
            open_source(path, options=named(label="label"))
    with pytest.raises(UserError, match="The data is a ndarray; leave the names of columns out"):
        load_images(np.zeros((2, 4, 4, 3), np.uint8), label_column="label")
    make(open_source(str(tmp_path)), tmp_path / "out")
    with pytest.raises(UserError, match="holds shards, which have no columns to name"):
        load_images(str(tmp_path / "out"), label_column="label")


def test_the_choice_of_a_column_makes_other_shards(tmp_path):
    path = write(tmp_path / "x.parquet", coarse_label=[0, 0, 1, 1], fine_label=[3, 2, 1, 0])
    chosen = [open_source(path, options=named(label=name)) for name in ("", "coarse_label", "none")]
    assert len({source.identity() for source in chosen}) == 3


def test_columns_of_other_names_are_told(tmp_path):
    """A column that is not called as labels are is not taken for them, but named."""
    path = write(tmp_path / "a.parquet", kind=[3, 0, 1, 2], id=["x"] * 4)
    assert left(open_source(path)) == ["2 columns (kind, id): none is called as labels are, or is named"]
    assert labels(path, label="kind") == [3, 0, 1, 2]


def test_texts_that_look_alike_are_one_class(tmp_path):
    path = write(tmp_path / "x.parquet", label=["caf\u00e9", "cafe\u0301", "a", "Caf\u00e9"])
    source = open_source(path)
    assert source.class_names == ("Caf\u00e9", "a", "caf\u00e9")
    assert labels(path) == ["caf\u00e9", "caf\u00e9", "a", "Caf\u00e9"]
    assert load_images(path).class_counts == (1, 1, 2)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"1": "b", "0": "a"}, ("a", "b")),
        ({"1": "b"}, ()),
        ("[" * 100_000, ()),
        (["a", "e\u0301"], ("a", "\u00e9")),
    ],
)
def test_names_in_the_metadata_of_the_hub(tmp_path, names, wanted):
    said = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    text = names if isinstance(names, str) else json.dumps(said)
    table = pa.table({"image": IMAGES, "label": [0, 1, 1, 0]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, tmp_path / "x.parquet")
    assert open_source(str(tmp_path / "x.parquet")).class_names == wanted


def test_a_label_of_64_bits_is_refused(tmp_path):
    path = write(tmp_path / "x.parquet", label=pa.array([0, 2**64 - 1, 1, 1], pa.uint64()))
    with pytest.raises(UserError, match="has the label 9223372036854775807, and there may be at most"):
        load_images(path)


def test_a_column_that_divides_the_rows_into_splits(tmp_path):
    write(tmp_path / "a.parquet", split=["train"] * 4)
    write(tmp_path / "b.parquet", split=["train", "test", None, "TRAIN"])
    with pytest.raises(UserError, match="has rows of the splits test, train, as its column 'split' says"):
        open_source(str(tmp_path / "b.parquet"))
    with pytest.raises(UserError, match="write a file for each split, or leave the column out"):
        open_source(str(tmp_path))
    for name, values in [("split", ["train"] * 4), ("subset", list("abca")), ("split", [0, 1, 0, 1])]:
        assert labels(write(tmp_path / "c.parquet", label=[0, 1, 0, 1], **{name: values})) == [0, 1, 0, 1]
