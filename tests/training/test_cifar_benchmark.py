"""benchmarks/cifar_gpu.py ends in the same weights and scores, however often it is stopped."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from cm_ray.metrics.extractors.cifar_resnet import CifarResNet, CifarResNetExtractor
from cm_ray.storage.tensor_files import read_safetensors
from tests.training.hub_images import write_images

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = ["--teacher-steps=2", "--student-steps=3", "--batch-size=2", "--channels=32", "--samples=4"]
OPTIONS = [*SIZES, "--weights=none", "--heun=2", "--device=cpu", "--precision=float32"]


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("machine"), "RESULTS", tmp_path)
    script = importlib.import_module("cifar_gpu")
    monkeypatch.setattr(script, "LOOK", 1)
    torch.manual_seed(0)
    extractor = CifarResNetExtractor(CifarResNet(8).eval(), "none", "random")
    monkeypatch.setattr(script, "open_features", lambda weights, device: extractor)
    return script


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data")


@pytest.mark.parametrize("method", ["ect", pytest.param("cd", marks=pytest.mark.exhaustive)])
def test_a_stopped_run_is_an_uninterrupted_one(method, script, data, tmp_path, capsys):
    def call(name, minutes):
        words = [*OPTIONS, f"--method={method}", f"--data={data}", f"--out={tmp_path / name}", minutes]
        return script.run(script.options_parser().parse_args(words))

    assert call("whole", "--minutes=60") == 0
    folders = []
    for expected in [script.STOPPED] * 6 + [
        0
    ]:  # two steps, three steps, two batches for each of three samplers
        assert call("parts", "--minutes=0") == expected
        folders.append({path.name for path in (tmp_path / "parts").iterdir() if path.is_dir()})
    student = f"student-{method}"
    assert folders[0] == {"teacher"}
    assert folders[1] == {"teacher-model", student}, "of a finished stage its model alone is left"
    assert folders[-1] == {"teacher-model", f"{student}-model"}
    for model in folders[-1]:
        states = [
            read_safetensors(tmp_path / name / model / "weights.safetensors")[0]
            for name in ("whole", "parts")
        ]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    whole, parts = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "parts"))
    for key, score in whole["scores"].items():
        assert score["distance"] == parts["scores"][key]["distance"] > 0
    grids = {path.name for path in (tmp_path / "parts").glob("*.png")}
    assert grids == {"teacher-heun.png", "student-one-step.png", "student-two-steps.png"}
    assert len((tmp_path / "cifar_gpu.jsonl").read_text().splitlines()) == 2
    assert re.findall(r"has ([\d.]+) MB", capsys.readouterr().out)[-1] == size_in_megabytes(
        tmp_path / "parts"
    )


def size_in_megabytes(folder):
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f}"
