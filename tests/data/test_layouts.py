"""The description that every source gives of itself: its layout, its split and what it leaves out."""

import numpy as np
import pytest

from cm_ray.data.open_source import open_source
from tests.data.test_sources import encoded, picture, write_parquet


@pytest.fixture
def places(tmp_path):
    """The path or name of a data set of each form."""
    image = encoded(picture(0))
    for name in ("flat/0.png", "classes/a/0.png", "classes/b/0.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    write_parquet(tmp_path / "one.parquet", [image])
    for name in "ab":
        write_parquet(tmp_path / "two" / f"{name}.parquet", [image])
    np.savez(tmp_path / "x.npz", np.zeros((1, 4, 4, 3), np.uint8))
    return {name: str(tmp_path / name) for name in ("flat", "classes", "one.parquet", "two", "x.npz")}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("flat", "image files"),
        ("classes", "image files in class folders"),
        ("one.parquet", "a Parquet file with images in 'img', without labels"),
        ("two", "Parquet files with images in 'img', without labels"),
        ("x.npz", "an .npz file with images in 'arr_0', without labels"),
    ],
)
def test_a_path_has_a_layout_and_no_split(places, name, layout):
    source = open_source(places[name])
    assert (source.layout, source.split, source.left_out) == (layout, "", ())


def test_named_data_sets_have_a_split():
    for source, layout, split in [
        (open_source("digits"), "the digits of scikit-learn", "train"),
        (open_source("cifar10", "test"), "the binary files of CIFAR-10", "test"),
    ]:
        assert (source.layout, source.split, source.left_out) == (layout, split, ())
