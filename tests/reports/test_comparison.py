"""A table of methods as Markdown, CSV and a picture."""

import csv

from PIL import Image

from cm_ray.reports.comparison import Cell, write_comparison
from tests.tracking.tracked_runs import score


def cell(method, sampler, nfe, value, **more):
    row = score(value, sampler=sampler, nfe=nfe).to_row()
    return Cell(
        method=method, score=row, noise_distance=20.0, **{"seconds_per_1000": 0.25, "training_s": 61.4} | more
    )


CELLS = [
    cell("EDM (Heun)", "heun:18", 35, 0.2),
    cell("CD", "one-step", 1, 0.5),
    cell("CD", "multistep@2.0", 2, 0.25, training_s=None),
]


def test_files(tmp_path):
    files = write_comparison(CELLS, tmp_path / "table", title="Some", note="How.")
    assert [file.name for file in files] == ["table.md", "table.csv", "table.png"]
    text = files[0].read_text()
    assert text.startswith("# Some\n")
    assert text.endswith("\nHow.\n")
    assert "| CD | `multistep@2.0` | 2 | 0.250 | 1.25% | 0.25 |  |" in text
    assert "| EDM (Heun) | `heun:18` | 35 | 0.200 | 1.00% | 0.25 | 61 s |" in text
    rows = list(csv.DictReader(files[1].open()))
    assert [float(row["value"]) for row in rows] == [0.2, 0.5, 0.25]
    assert {row["score"] for row in rows} == {"FD-digits-1797"}
    with Image.open(files[2]) as picture:
        assert picture.size[0] > 600
        assert len(picture.convert("L").getcolors()) > 20, "something was drawn"
