"""benchmarks/cpu.py runs, its ways compute the same, and its rows say what they should."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from cm_ray.networks.normalisation import GroupNorm

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("machine"), "RESULTS", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))
    return importlib.import_module("cpu")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "cpu.jsonl").read_text().splitlines()]


def test_normalisations_compute_the_same(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "SHAPES", ((2, 64, 16),))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 16, 16, generator=generator).to(memory_format=torch.channels_last)
    modulation = tuple(torch.randn(2, 64, 1, 1, generator=generator) for _ in range(2))
    norm = GroupNorm(32, 64)
    expected = benchmark.plain(norm, x.contiguous(), modulation)
    for way in (benchmark.plain, benchmark.copied, benchmark.fused):
        torch.testing.assert_close(way(norm, x, modulation), expected, rtol=1e-4, atol=1e-5)
    threads = torch.get_num_threads()
    benchmark.measure(benchmark.CPU(sections=("normalisation",), rounds=1))
    torch.set_num_threads(threads)
    (row,) = rows_of(tmp_path)
    assert row["fused_over_last"] == pytest.approx(row["fused_ms"] / row["last_ms"], rel=0.02)
    assert row["shape"] == [2, 64, 16, 16]


@pytest.mark.slow
def test_workers_take_turns(benchmark, tmp_path):
    """Three processes that import PyTorch."""
    benchmark.measure(benchmark.CPU(sections=("workers",), rounds=1, batch_size=2))
    (row,) = rows_of(tmp_path)
    assert row["two_over_one"] == pytest.approx(
        row["two_of_one_thread_s"] / row["one_of_two_threads_s"], rel=0.02
    )
    assert row["two_of_one_thread_processor_s"] > 0
