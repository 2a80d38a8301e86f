"""The paper's table on digits, tiny: every method trained, every cell measured once, nested in MLflow."""

import csv

import pytest

from cm_ray.cluster import paper_table
from cm_ray.cluster.paper_table import Table, Training, make_table
from cm_ray.cluster.pool.scorer import PoolScorer
from cm_ray.command_line.options import parse_changes
from cm_ray.core.schedules import Constant, Halving
from cm_ray.errors import UserError
from cm_ray.recipes.comparison import COMPARED
from cm_ray.sampling.text import text_of
from cm_ray.settings.choices import word_of
from cm_ray.tracking.store import calling_mlflow, open_client

pytestmark = pytest.mark.ray

TINY = {
    "steps": 14,
    "batch_size": 16,
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "checkpoint.every": 14,
    "evaluation.every": 0,
    "evaluation.samples": 32,
    "evaluation.grid": 2,
    "cluster.threads": 1,
}


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "methods",
    [
        ("edm", "pd"),
        pytest.param(("edm", "cd", "pd", "ect", "ct", "ict"), marks=pytest.mark.slow),
        pytest.param(("trigflow", "ict", "tcm", "scd", "meanflow"), marks=pytest.mark.slow),
    ],
)
def test_a_table_goes_on_where_it_was_stopped(methods, ray_cluster, trains_here, tmp_path, monkeypatch):
    table = Table(folder=tmp_path / "runs" / "table", data="digits", changes=TINY, methods=methods)
    sampled, done = PoolScorer.sampled, []

    def counted(self, folder, request):
        if len(done) == 7:
            raise Killed
        done.append((folder, text_of(request.sampler)))
        return sampled(self, folder, request)

    train, trained = paper_table.train, []

    def watched(config, prepared):
        assert prepared.folder_for(config.data), "a training would look at all files of the data again"
        trained.append(config.name)
        train(config, prepared=prepared)

    monkeypatch.setattr(paper_table, "train", watched)
    with monkeypatch.context() as patch:
        patch.setattr(
            PoolScorer, "sampled", stopped_in_the_table(counted, sampled, table.folder / methods[-1])
        )
        with pytest.raises(Killed):
            make_table(table)
    assert trained == [f"{method}_digits" for method in methods]
    cells = {file.name: file.stat().st_mtime_ns for file in (table.folder / "cells").iterdir()}
    assert len(cells) == 7
    files = make_table(table)
    rows = list(csv.DictReader(files[1].open()))
    assert len(rows) == 1 + 4 * len(methods)
    assert [row["evaluations"] for row in rows] == ["35.0", *["1.0", "2.0", "4.0", "8.0"] * len(methods)]
    for name, stamp in cells.items():
        assert (table.folder / "cells" / name).stat().st_mtime_ns == stamp, "measured once"
    assert all(file.is_file() for file in files)
    check_mlflow(tmp_path / "runs" / "mlflow.db", methods)


def stopped_in_the_table(counted, sampled, last):
    """Stop among the cells, not among the final samples of the runs."""

    def choose(self, folder, request):
        among_cells = (last / "result.json").exists()
        return (counted if among_cells else sampled)(self, folder, request)

    return choose


def check_mlflow(store, methods):
    with calling_mlflow(5):
        client = open_client(f"sqlite:///{store}")
        experiment = client.get_experiment_by_name("cm_ray").experiment_id
        (parent,) = [run for run in client.search_runs([experiment]) if run.info.run_name == "table"]
        children = client.search_runs(
            [experiment], filter_string=f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        )
    assert {run.info.run_name for run in children} == {f"{method}_digits" for method in methods}
    assert parent.info.status == "FINISHED"
    assert ("PD pd:1 seed 0" in parent.data.metrics) == ("pd" in methods)


def test_changes_are_paths_and_values():
    assert parse_changes(["steps=3", "network.channel_mult=[1,2]", "distance=l1"]) == {
        "steps": 3,
        "network.channel_mult": [1, 2],
        "distance": "l1",
    }
    with pytest.raises(UserError, match="--set 'steps' must be path=value"):
        parse_changes(["steps"])


def test_every_method_gets_the_changes_of_its_own_settings(tmp_path):
    changes = {
        "distance": "norm",
        "rounds.s1": 32,
        "times.scales": "constant",
        "times.scales.n": 9,
        "steps": 60,
    }
    table = Table(folder=tmp_path / "t", data="digits", changes=changes, methods=tuple(COMPARED), seeds=2)
    configs = paper_table.recipes_of(table)
    assert list(configs) == [Training(method, number) for number in (0, 1) for method in COMPARED]
    for training, config in configs.items():
        assert config.steps == 60
        if training.method not in ("sct", "scd"):
            assert word_of(config.method.distance) == "norm"
        ending = "-1" if training.number else ""
        assert config.run_dir == str(tmp_path / "t" / f"{training.method}{ending}")
        assert config.seed == training.number
    first = {training.method: config for training, config in configs.items() if training.number == 0}
    second = {training.method: config for training, config in configs.items() if training.number == 1}
    assert first["pd"].method.rounds == Halving(s0=1, s1=32)
    assert all(first[method].method.times.scales == Constant(n=9) for method in ("cd", "ct", "ict"))
    assert first["ect"].method.times.scales is None
    check_starts(first, tmp_path / "t", "")
    check_starts(second, tmp_path / "t", "-1")


def check_starts(configs, folder, ending):
    """Every method has the model of its own seed as its teacher, or begins with its weights."""
    for method, start in {"cd": "edm", "pd": "edm", "tcm": "ict", "scd": "trigflow"}.items():
        assert configs[method].teacher.model == str(folder / f"{start}{ending}")
        assert configs[method].init_from.model == "teacher"
    assert configs["ect"].init_from.model == str(folder / f"edm{ending}")
    alone = set(COMPARED) - {"cd", "pd", "tcm", "scd", "ect"}
    assert all(configs[method].init_from.model == "" for method in alone)


def test_bad_settings_are_said_before_anything_is_trained(tmp_path):
    for changes, sentence in [
        ({"stepz": 1}, "stepz is not a setting: did you mean 'steps'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"evaluation.extractor": "none"}, "has no feature extractor"),
        ({"rounds.s2": 4}, "rounds.s2 is not a setting: "),
        ({"times.q": 4.0}, "times.q belongs to times tuned, and times is grid"),
        ({"rounds.s1": 4, "rounds.s0": 2}, "has no model for each of 1, 2, 4, 8 steps"),
    ]:
        table = Table(folder=tmp_path / "t", data="digits", changes=changes, tracking_uri="none")
        with pytest.raises(UserError, match=sentence):
            make_table(table)
        assert not table.folder.exists()
