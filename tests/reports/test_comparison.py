"""A table of methods as Markdown, CSV and a picture."""

import csv

from PIL import Image

from cm_ray.reports.comparison import Cell, write_comparison
from tests.tracking.tracked_runs import score


def cell(method, sampler, nfe, value, **more):
    settings = {
        "seed": 0,
        "evaluations": float(nfe),
        "seconds_per_1000": 0.25,
        "training_s": 61.4,
        "steps": 9,
    }
    row = score(value, sampler=sampler, nfe=nfe).to_row()
    return Cell(method=method, score=row, noise_distance=20.0, **settings | more)


CELLS = [
    cell("EDM (Heun)", "heun:18", 35, 0.2, bits_per_dim=2.5),
    cell("VP (ODE)", "ode", 0, 0.3, evaluations=61.25),
    cell("CD", "one-step", 1, 0.5),
    cell("CD", "one-step", 1, 0.7, seed=1),
    cell("CD", "one-step", 1, 0.9, seed=2),
    cell("CD", "multistep@2.0", 2, 0.25, training_s=None),
    cell("CD", "multistep@2.0", 2, 0.35, seed=1),
]


def test_files(tmp_path):
    files = write_comparison(CELLS, tmp_path / "table", title="Some", note="How.")
    assert [file.name for file in files] == ["table.md", "table.csv", "table.png"]
    text = files[0].read_text()
    assert text.startswith("# Some\n")
    assert text.endswith("\nHow.\n")
    error = 0.2 / 3**0.5  # the deviation of 0.5, 0.7 and 0.9, over the root of 3
    assert f"| CD | 0.700 ± {error:.3f} | 0.300 ± 0.050 |  |  |" in text
    assert "| CD | `multistep@2.0` | 2 | 0.300 ± 0.050 | 1.50% | 0.25 |  | 9 |  | 2 |" in text
    assert "| EDM (Heun) | `heun:18` | 35 | 0.200 | 1.00% | 0.25 | 2.50 | 9 | 61 s | 1 |" in text
    assert "| VP (ODE) | `ode` | 61.25 | 0.300 |" in text
    few = text[: text.index("All samplers:")]
    assert [name for name in ("VP", "Heun") if name in few] == [], "without few evaluations no row"
    rows = list(csv.DictReader(files[1].open()))
    assert [float(row["value"]) for row in rows] == [0.2, 0.3, 0.5, 0.7, 0.9, 0.25, 0.35]
    assert [float(row["evaluations"]) for row in rows] == [35, 61.25, 1, 1, 1, 2, 2]
    assert {row["score"] for row in rows} == {"FD-digits-1797"}
    with Image.open(files[2]) as picture:
        assert picture.size[0] > 600
        assert len(picture.convert("L").getcolors()) > 20, "something was drawn"
