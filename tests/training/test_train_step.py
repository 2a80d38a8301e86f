"""benchmarks/train_step.py runs, and its rows say what they should."""

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
    script = importlib.import_module("train_step")
    monkeypatch.setattr(script, "PEAK_SIZE", 64)
    monkeypatch.setattr(script, "measured_memory", lambda config, spec, rows, device: rows * 2**20)
    return script


def test_rows_of_a_comparison(benchmark, tmp_path):
    benchmark.measure(benchmark.TrainStep(precisions=("float32",), methods=("ct",), batch_size=1, rounds=1))
    benchmark.measure(
        benchmark.TrainStep(
            networks=("digits",), methods=("cd",), precisions=("bfloat16",), batch_size=2, rounds=1
        )
    )
    rows = [json.loads(line) for line in (tmp_path / "train_step.jsonl").read_text().splitlines()]
    assert [(row["network"], row["method"], row["case"]) for row in rows] == [
        ("small", "ct", "float32"),
        ("small", "ct", "plain float32"),
        ("digits", "cd", "bfloat16"),
    ]
    ours, plain, digits = rows
    assert ours["tflop"] == plain["tflop"] == pytest.approx(0.2325 / 16, rel=0.01), "as counted of theirs"
    assert ours["parameters"] == pytest.approx(7.66e6, rel=1e-3)
    assert ours["times_plain_float32"] == pytest.approx(plain["seconds"] / ours["seconds"], rel=0.02)
    assert plain["times_plain_float32"] == 1
    assert (ours["peak_mib"], digits["peak_mib"]) == (1, 2)
    assert 0 < digits["averages_share"] < 1
    for row in rows:
        assert row["images_per_s"] == pytest.approx(row["batch_size"] / row["seconds"], rel=0.02)
        assert row["machine"]["cores"] >= 1
