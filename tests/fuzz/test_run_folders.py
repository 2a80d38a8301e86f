"""The JSON files of run folders: any damage gives an error of one sentence, or what a run can have."""

import json
import math

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from cm_ray.cluster.pool.result import SampleResult, TaskResult
from cm_ray.cluster.sweeps.identity import id_of_sweep
from cm_ray.cluster.time_points.point_plan import read_search
from cm_ray.command_line.recipe_options import recipe_from_file
from cm_ray.editing.results import Origin, ResultFolder
from cm_ray.errors import UserError
from cm_ray.evaluation.lengths import ScoredLength, read_lengths
from cm_ray.evaluation.score_folder import Scored
from cm_ray.metrics.score import Score
from cm_ray.recipes import ict_digits
from cm_ray.runs.checkpoint import CheckpointStore, read_meta
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.resources import Resources
from cm_ray.settings.tree import to_dict
from cm_ray.storage.files import inside
from cm_ray.tracking.sent_state import SentState
from cm_ray.training.optimizer import restore_scaler
from tests.fuzz.mutations import JSON, mutated, mutated_json
from tests.fuzz.running import assert_one_line, fuzz
from tests.results import result
from tests.tracking.tracked_runs import score

ROW = score(2.0).to_row()
NEW = score(3.0)
LENGTH = ScoredLength(length=0.1, step=4, fit_error=0.0, score=score(2.0), influence=(0.1, 0.2)).to_row()
RESULT = result(ROW, paths={"model": "model", "samples": ["samples/one.png"]}, class_shares={"a": 0.5})


def read_result(run):
    found = run.result()
    assert all(math.isfinite(Score.from_file(row, run.result_file).value) for row in found["scores"])
    for name in found["paths"]["samples"]:
        assert inside(run.root, name).resolve().is_relative_to(run.root.resolve())


def read_rows(run):
    run.scored_steps()
    assert all(type(row["step"]) is int for row in run.read_metrics())


SWEPT = {
    **{"space": {"distance": "l2"}, "minimize": ["FD"], "seeds": 2, "sampler": "tpe", "study": "a"},
    **{"storage": "", "base.steps": "3", "id": "ab"},
}
SEARCHED = {
    **{"reference": "ab", "model": "cd", "network": "ef", "extractor": ["a", "b", "c"], "at_once": 2},
    **{"nfe": 2, "update": True, "zone": 0.04, "own_code": [], "data": ["digits", 8]},
}
SCALER = torch.amp.GradScaler("cpu", enabled=True)


def read_sought(run):
    found = read_search(run)
    assert {type(found[name]) for name in ("reference", "model", "network")} == {str}
    assert type(found.get("at_once", 1)) is int


def read_checkpoint(run):
    step, extra = read_meta(run.root / "meta.json")
    assert type(step) is int
    if scaler := extra.get("scaler"):
        restore_scaler(torch.amp.GradScaler("cpu", enabled=True), scaler, "x")


FILES = {
    "config.json": (to_dict(ict_digits()), lambda run: (run.config(), recipe_from_file(run.config_file))),
    "result.json": (RESULT, read_result),
    "lineage.json": (
        {"data.fingerprint": "ab", "python": "3"},
        lambda run: run.lineage()["data.fingerprint"],
    ),
    "tracking.json": (
        {
            **{"uri": "none", "key": "a", "run_id": "b", "started_ms": 5, "described": True, "step": 3},
            **{"names": ["loss"], "files": {"a": "1-2"}},
            "pictures": {"a.png": "1"},
            "version": {"name": "m", "version": "1", "champion": True, "reason": "", "content": "ab"},
        },
        lambda run: SentState.read(run.tracking_file, "none"),
    ),
    "resources.json": ({"device": "cpu", "workers": 1, "threads": 2}, lambda run: Resources.load(run.root)),
    "averages.json": ([LENGTH, LENGTH], read_lengths),
    "best.json": (
        {"step": 3, "score": ROW},
        lambda run: CheckpointStore(run.root, 1).offer_best(4, NEW),
    ),
    "scores.json": ([ROW, ROW], lambda run: Scored(run, "photos", "ab")),
    "source.json": ({"source": "photos", "content": "ab"}, lambda run: Scored(run, "photos", "ab")),
    "sweep.json": (SWEPT, lambda run: id_of_sweep(run, {"seeds": 2})),
    "search.json": (SEARCHED, read_sought),
    "meta.json": ({"step": 3, "extra": {"scaler": SCALER.state_dict()}}, read_checkpoint),
    "edits.json": (
        {"a-0.png": ["a.png", "ab"], "b-0.png": ["b.png", "cd"]},
        lambda run: ResultFolder(run.root, {"a-0.png": Origin("a.png", "ab")}).begin([]),
    ),
}
"""The files of runs, evaluations and edits, with their readers."""


@pytest.fixture
def reading(tmp_path):
    """Return a function that reads a file with these bytes, alone in its folder."""

    def read(name, data):
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / name).write_bytes(data)
        try:
            FILES[name][1](RunDirectory(tmp_path))
        except UserError as error:
            assert_one_line(error)

    return read


def test_the_files_themselves_are_read(tmp_path):
    for name, (value, reader) in FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(json.dumps(value))
        reader(RunDirectory(folder))


def test_values_of_records(reading):
    changed = st.sampled_from(sorted(FILES)).flatmap(
        lambda name: st.tuples(st.just(name), mutated_json(FILES[name][0]) | JSON)
    )
    fuzz(changed, lambda example: reading(example[0], json.dumps(example[1]).encode()), few=400)


def test_bytes_of_records(reading):
    changed = st.sampled_from(sorted(FILES)).flatmap(
        lambda name: st.tuples(st.just(name), mutated(json.dumps(FILES[name][0], indent=2).encode()))
    )
    fuzz(changed, lambda example: reading(*example), few=200)


def test_logs(tmp_path):
    rows = [{"step": step, "loss": 0.5, "scores": [ROW], "seconds": 1.0} for step in range(3)]
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    run = RunDirectory(tmp_path)
    others = st.lists(mutated_json(rows[0]) | JSON, max_size=3)
    lines = others.map(lambda values: "\n".join(map(json.dumps, values)).encode())

    def check(data):
        run.metrics_file.write_bytes(data)
        try:
            read_rows(run)
        except UserError as error:
            assert_one_line(error)

    fuzz(mutated(whole) | lines, check, few=200)


def test_results_of_the_pool(tmp_path):
    whole = SampleResult()
    whole.append(
        TaskResult(3, torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, 4), None, None, 1.0)
    )
    file = tmp_path / "x.safetensors"
    whole.save(file)
    outputs = frozenset({"images", "features"})
    assert SampleResult.load(file, outputs).count == 3
    counts = st.one_of(JSON.map(json.dumps), st.text(max_size=8))
    named = counts.map(lambda text: save({"seconds": torch.zeros(1)}, {"count": text}))

    def check(data):
        file.write_bytes(data)
        found = SampleResult.load(file, frozenset())
        assert found is None or (type(found.count) is int and found.count > 0)
        SampleResult.load(file, outputs)

    fuzz(mutated(file.read_bytes()) | named, check, few=200)
