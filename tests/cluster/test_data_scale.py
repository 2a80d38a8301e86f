"""benchmarks/data_scale.py in a small form: batches of a sorted source are as mixed as random draws."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_row(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("machine"), "RESULTS", tmp_path)
    script = importlib.import_module("data_scale")
    script.measure(
        script.DataScale(
            folder=str(tmp_path / "data"), images=3001, size=4, classes=100, files=7, batch_size=100
        )
    )
    (row,) = [json.loads(line) for line in (tmp_path / "data_scale.jsonl").read_text().splitlines()]
    assert row["images"] == 3001
    assert row["classes_expected"] == 63, "100 · (1 - 0.99^100)"
    for mode in ("stream", "memory"):
        assert abs(row[mode]["classes_in_batch"] - 63) <= 12, "one file alone has 15 classes"
        assert row[mode]["images_per_s"] > 0
    assert row["stream"]["resumed_batch_s"] > 0
    assert 0 < row["repeated_opens"] <= 3 * row["files"], "repeated, each file is opened for its header alone"
    assert all(mib > 0 for mib in row["shards_peak_mib"] + row["peak_mib"])
