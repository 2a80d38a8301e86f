"""Grids and arrays of samples say the classes of their images by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from cm_ray.drawing.pictures import save_samples
from cm_ray.drawing.samples import Samples

NAMES = ("cat", "dog, small", "Eel \u00e9")
IMAGES = torch.arange(7, dtype=torch.uint8).reshape(7, 1, 1, 1).expand(7, 1, 8, 8)
LABELS = torch.tensor([2, 0, 1, 1, 0, 2, 2])


def test_a_legend_says_the_classes_row_by_row(tmp_path):
    paths = save_samples(IMAGES, tmp_path / "a.b", labels=LABELS, class_names=NAMES, most=5, columns=3)
    assert [path.name for path in paths] == ["a.b.png", "a.b.npz"]
    legend = (tmp_path / "a.b.classes.txt").read_text()
    assert legend == "row 1: Eel \u00e9, cat, dog, small\nrow 2: dog, small, cat\n"
    save_samples(IMAGES, tmp_path / "a.b")
    assert not (tmp_path / "a.b.classes.txt").exists(), "that of another grid"


@pytest.mark.parametrize("columns", [0, 2, 7])
def test_the_legend_has_the_rows_of_the_grid(columns, tmp_path):
    grid, _ = save_samples(IMAGES, tmp_path / "x", labels=LABELS, class_names=NAMES, columns=columns)
    rows = (tmp_path / "x.classes.txt").read_text().splitlines()
    picture = Image.open(grid)
    factor = picture.width // (9 * (columns or 3) - 1)
    assert len(rows) == round((picture.height / factor + 1) / 9)


def test_arrays_name_the_classes_of_their_labels(tmp_path):
    save_samples(IMAGES, tmp_path / "x", labels=LABELS, class_names=NAMES)
    samples = Samples(IMAGES, LABELS, NAMES)
    samples.save(tmp_path / "y.npz")
    for name in ("x.npz", "y.npz"):
        with np.load(tmp_path / name, allow_pickle=False) as arrays:
            assert sorted(arrays) == ["arr_0", "arr_1", "class_names"]
            assert [str(arrays["class_names"][i]) for i in arrays["arr_1"]] == [NAMES[i] for i in LABELS]
    Samples(IMAGES, None, NAMES).save(tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz") as arrays:
        assert sorted(arrays) == ["arr_0"]
