"""benchmarks/gpu.py goes through all its sections, notices a wrong network, and needs few packages."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cm_ray.training import arithmetic

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The program as a module, in which compiling costs nothing and the clock is read after every step."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("machine"), "RESULTS", tmp_path)
    monkeypatch.setattr(arithmetic, "BACKEND", "eager")
    script = importlib.import_module("gpu")
    monkeypatch.setattr(script, "STEPS", 1)
    yield script
    torch.compiler.reset()


EAGER, COMPILED = ("eager", "plain", "channels first"), ("compiled", "graphs", "compiled channels first")


@pytest.mark.parametrize(
    ("left_out", "variants"),
    [({"compiled", "waits"}, EAGER), pytest.param(set(), EAGER + COMPILED, marks=pytest.mark.exhaustive)],
    ids=["quick", "all"],
)
def test_the_sections_in_a_small_form(left_out, variants, benchmark, tmp_path):
    sections = [name for name in benchmark.SHARES if name not in left_out]
    options = ["--device", "cpu", "--small", "--workloads", "cifar10 ncsn++ ct", "--seconds", "600"]
    assert benchmark.main([*options, "--sections", *sections]) == 0
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert {row["section"] for row in rows} == {"matmul", *sections}
    steps = {row["case"].split(", ")[1]: row for row in rows if row["section"] in ("steps", "compiled")}
    assert steps.keys() == {*variants}
    for row in steps.values():
        assert row["images_per_s"] == pytest.approx(4000 / row["ms"], rel=0.05)
        assert 0 < row["update_differs"] < 0.3, "bfloat16 rounds"
        assert row["machine"]["torch"] == torch.__version__
    assert {row["case"] for row in rows if row["section"] == "updates"} > {
        "RAdam, foreach",
        "average, foreach",
    }


@pytest.mark.parametrize("workload", ["cifar10 ddpm++ ect", "imagenet64 adm ct", "cifar10 ddpm++ cd"])
def test_a_wrong_network_is_noticed(workload, benchmark):
    cases = importlib.import_module("gpu_cases")
    case = cases.Case(workload=workload, variant="eager", batch_size=4, device="cpu", small=True)
    reference = cases.Reference.of(case)
    for factor, right in ((1.0, True), (1.5, False)):
        engine = cases.engine_of(case)
        engine.student.network.register_forward_hook(lambda _, args, y, factor=factor: factor * y)
        assert reference.check(engine, cases.stepper(case, engine)).holds == right
    precise = dataclasses.replace(case, precision="float32")
    engine = cases.engine_of(precise)
    assert reference.check(engine, cases.stepper(precise, engine)).update < 1e-3


def test_a_section_ends_with_its_time_and_an_error_is_a_row(benchmark, monkeypatch, tmp_path):
    def waits(run, case):
        raise RuntimeError("a planted fault")

    def updates(run, case):
        while True:
            pass

    monkeypatch.setattr(benchmark, "waits", waits)
    monkeypatch.setattr(benchmark, "updates", updates)
    options = ["--device", "cpu", "--small", "--sections", "updates", "waits", "--seconds", "4"]
    assert benchmark.main(options) == 1
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row.get("failed") for row in rows] == [None, "RuntimeError: a planted fault"]


ABSENT = (
    *("ray", "mlflow", "lpips", "cleanfid", "optuna", "tyro", "sklearn", "matplotlib", "tqdm", "gradio"),
    *("diffusers", "scipy", "pandas", "torchvision", "fastapi", "requests"),
)
PROGRAM = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, {str(BENCHMARKS)!r})
import {{0}}
import cm_ray.core.loss, cm_ray.training.engine, cm_ray.training.loop
"""


@pytest.mark.parametrize("program", ["gpu", "cifar_gpu"], ids=["steps", "cifar10"])
def test_few_packages_are_needed(program):
    """A machine with a GPU may have no more than PyTorch, NumPy, Pillow, safetensors and PyArrow."""
    code = PROGRAM.replace("{0}", program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
