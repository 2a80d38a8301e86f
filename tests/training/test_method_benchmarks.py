"""The short forms of the benchmarks that compare methods: trained once, measured once, a table at the end."""

import csv
import importlib
import json
from pathlib import Path

import pytest
import torch

from cm_ray.metrics.extractors.cifar_resnet import CifarResNet, CifarResNetExtractor
from cm_ray.networks.formats.reading import load_model
from tests.training.hub_images import write_images

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """Return a function that imports a benchmark whose results go elsewhere."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(BENCHMARKS)
    for module in ("machine", "in_process"):
        monkeypatch.setattr(importlib.import_module(module), "RESULTS", tmp_path / "results")
    monkeypatch.setattr(importlib.import_module("in_process"), "step_seconds", lambda *given: 1.0)
    yield importlib.import_module
    torch.set_num_threads(threads)


def rows_of(tmp_path, name):
    lines = (tmp_path / "results" / f"{name}.jsonl").read_text().splitlines()
    return [
        {key: row for key, row in json.loads(line).items() if key not in ("time", "machine")}
        for line in lines
    ]


def test_digits(scripts, tmp_path):
    script = scripts("digits_methods")
    sizes = ["--batch-size=4", "--samples=20", "--likelihoods=1", "--seconds=11", "--teacher-seconds=12"]

    def call(*more):
        script.run(script.options_parser().parse_args([f"--out={tmp_path / 'out'}", *sizes, *more]))

    call("--methods", "edm", "--seeds", "0")
    assert len(rows_of(tmp_path, "digits_methods")) == 1 + 4 + 1, "Heun, DDIM and the likelihood"
    trained = (tmp_path / "out" / "seed-0" / "edm" / "training.json").stat().st_mtime_ns
    call("--methods", "pd", "--seeds", "0", "1")
    rows = rows_of(tmp_path, "digits_methods")
    assert len(rows) == 2 * (6 + 4)
    assert (tmp_path / "out" / "seed-0" / "edm" / "training.json").stat().st_mtime_ns == trained
    call("--methods", "pd", "--seeds", "0", "1")
    assert rows_of(tmp_path, "digits_methods") == rows, "what has a row is not measured again"
    assert {row["method"]: row["steps"] for row in rows} == {"edm": 12, "pd": 11}
    table = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert len(table) == 2 * (5 + 4)
    assert {row["method"]: bool(row["bits_per_dim"]) for row in table}["EDM (Heun)"]
    pd = {row["evaluations"]: float(row["value"]) for row in table if row["method"] == "PD"}
    assert len(set(pd.values())) == 4, "every number of steps has a model of its own"


def test_small_cifar(scripts, tmp_path, monkeypatch):
    script, data = scripts("cifar_small"), write_images(tmp_path / "data")
    extractor = CifarResNetExtractor(CifarResNet(8).eval(), "none", "cifar-resnet56")
    monkeypatch.setattr(script, "open_features", lambda weights: extractor)
    words = [
        f"--data={data}",
        "--weights=none",
        f"--out={tmp_path / 'out'}",
        "--samples=40",
        "--batch-size=4",
    ]
    words += ["--minutes=0.2", "--teacher-minutes=0.2", "--evaluations", "1", "--methods", "tcm", "scd"]
    script.run(script.options_parser().parse_args(words))
    rows = rows_of(tmp_path, "cifar_small")
    assert [row["method"] for row in rows] == ["edm", "edm", "ect", "tcm", "scd"], "with what they start from"
    assert {row["steps"] for row in rows} == {12}
    assert {row["score"]["key"]["preprocess"][:24] for row in rows} == {"8x8 bicubic to 32x32, 32"}
    assert load_model(tmp_path / "out" / "scd" / "model").spec.shape == (3, 8, 8)
    script.run(script.options_parser().parse_args(words))
    assert rows_of(tmp_path, "cifar_small") == rows
    assert "The floor, as many training images" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "scd-1.png").is_file()


def test_smaller_images_are_enlarged_for_the_extractor(scripts):
    script, seen = scripts("cifar_small"), []

    class Eyes:
        def features(self, images):
            seen.append(images)
            return images.flatten(1).float()

    grey = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    script.Enlarged(Eyes(), 8).features(grey)
    assert torch.equal(seen[0], torch.full((2, 3, 32, 32), 77, dtype=torch.uint8))
