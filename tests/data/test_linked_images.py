"""Parquet files that name image files: paths below their folder are read, others are refused."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm_ray.data.open_source import open_source
from cm_ray.data.tables import parquet_columns
from cm_ray.errors import UserError
from tests.data.trees import image_bytes, plant, seen

FILES = {"imgs/1.png": 1, "imgs/deep/2.png": 2, "3.png": 3}


def structs(paths):
    return [{"bytes": None, "path": path} for path in paths]


def only_paths(paths):
    return pa.array([{"path": path} for path in paths], pa.struct([("path", pa.string())]))


@pytest.mark.parametrize(
    ("column", "form"),
    [
        ("image", structs),
        ("image", only_paths),
        ("image", list),
        ("file_name", list),
        ("Path", lambda paths: pa.array(paths).dictionary_encode()),
    ],
)
@pytest.mark.parametrize("folder", ["", "data"])
def test_paths_are_relative_to_the_folder_of_the_table(tmp_path, monkeypatch, column, form, folder):
    plant(tmp_path / folder, FILES)
    table = pa.table({column: form([*[*FILES][:2], "imgs/../3.png"]), "label": ["b", "a", "b"]})
    pq.write_table(table, tmp_path / folder / "metadata.parquet")
    monkeypatch.chdir(os.sep)
    source = open_source(str(tmp_path / folder / "metadata.parquet"))
    assert seen(source) == {1: "b", 2: "a", 3: "b"}


def test_rows_with_bytes_and_rows_with_paths(tmp_path):
    plant(tmp_path, FILES)
    images = [{"bytes": image_bytes(7), "path": "gone.png"}, *structs(FILES)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    assert list(seen(source)) == [1, 2, 3, 7]
    assert list(source._linked(tmp_path / "x.parquet", 4)) == [*FILES]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "/etc/x.png",
            r"names its image by an absolute path \(/etc/x.png\); write paths relative to the folder",
        ),
        ("../x.png", r"names its image by a path out of the folder of the table \(../x.png\); write"),
        ("imgs/../../x.png", "by a path out of the folder of the table"),
        ("..", "by a path out of the folder of the table"),
        ("hf://datasets/x/1.png", "by an address"),
        ("http://127.0.0.1/1.png", "by an address"),
        ("file:///etc/x.png", "by an address"),
        ("C:\\x.png", "by an address"),
        ("imgs/4.png", r"names the image 'imgs/4.png', which is not in .*; put it there, or write the bytes"),
        ("imgs", "names the image 'imgs', which is not in"),
        ("", "names the image '', which is not in"),
        ("a\0b", r"names the image 'a\\x00b', which is not in|names the image 'a\\\\x00b', which is not in"),
    ],
)
def test_other_paths_are_refused_even_where_bad_images_are_skipped(tmp_path, path, message):
    plant(tmp_path, FILES | {"../x.png": 9})
    for form in (structs, list):
        pq.write_table(pa.table({"image": form(["3.png", path])}), tmp_path / "x.parquet")
        source = open_source(str(tmp_path / "x.parquet"))
        for read in (lambda: seen(source, on_bad_image="skip"), source.identity):  # noqa: B023
            with pytest.raises(UserError, match=r"x.parquet row 1 .*" + message) as raised:
                read()
            assert "\n" not in str(raised.value)


def test_damaged_images_are_bad_ones(tmp_path):
    plant(tmp_path, FILES | {"4.png": "no image"})
    pq.write_table(pa.table({"image": [*FILES, "4.png"]}), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    with pytest.raises(UserError, match="row 3 is not a readable image"):
        seen(source)
    assert list(seen(source, on_bad_image="skip")) == [1, 2, 3]


def test_identity_has_the_images(tmp_path):
    for name, number in (("a", 3), ("b", 9), ("c", 3)):
        place = plant(tmp_path / name, FILES | {"3.png": number})
        pq.write_table(pa.table({"image": structs(FILES)}), place / "x.parquet")
        for file in place.rglob("*.*"):
            os.utime(file, (1_600_000_000, 1_600_000_000))
    one, other, same = (open_source(str(tmp_path / name / "x.parquet")).identity() for name in "abc")
    assert one != other
    assert one == same


def test_images_in_the_table_are_not_read_for_their_paths(tmp_path, monkeypatch):
    images = [{"bytes": image_bytes(number), "path": "gone.png"} for number in range(3)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    monkeypatch.setattr("cm_ray.data.tables.parquet.read_rows", None)
    assert list(source._linked(tmp_path / "x.parquet", 3)) == []
    pq.write_table(pa.table({"image": images}), tmp_path / "y.parquet", write_statistics=False)
    assert parquet_columns.ParquetColumns("image", None, False, ()).are_paths(tmp_path / "y.parquet")
