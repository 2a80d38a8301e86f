"""benchmarks/derivative.py runs, and its rows compare methods on one network."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The script as a module, its rows going elsewhere; the processes that measure memory are not started."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("machine"), "RESULTS", tmp_path)
    script = importlib.import_module("derivative")
    monkeypatch.setattr(script, "measured_memory", lambda config, spec, rows, device: rows * 2**20)
    return script


def test_rows_of_all_methods(benchmark, tmp_path):
    benchmark.measure(benchmark.Derivative(network="digits", batch_size=2, rounds=2))
    rows = [json.loads(line) for line in (tmp_path / "derivative.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["ect", "sct", "scd", "meanflow", "shortcut"]
    one, two = rows[0], rows[3]
    assert one["times_ect"] == one["memory_over_ect"] == 1
    assert {row["parameters"] for row in rows[:3]} == {one["parameters"]}, "the same network"
    assert one["parameters"] < two["parameters"] < 1.1 * one["parameters"], "with a second time"
    assert rows[2]["times_ect"] > 1
    assert {row["peak_mib"] for row in rows} == {2}
