"""A bar on a terminal, lines elsewhere, every row once."""

import contextlib
import sys

import pytest

from cm_ray.cluster.training.run import Run
from cm_ray.errors import UserError
from cm_ray.runs import console
from cm_ray.runs.console import Progress, followed, shown
from cm_ray.runs.directory import RunDirectory

SCORE = {"name": "FD-digits-9", "value": 1.5, "key": {"sampler": "heun:18"}}


def row(step, **more):
    training = {"loss": 0.5, "num_scales": 11, "target_decay": 0.9, "images_per_s": 800.0, "seconds": 2.0}
    return {"step": step, **(more or training)}


def test_lines(capsys):
    progress = Progress(40)
    progress.show(row(1))
    progress.show(row(10))
    progress.show(row(20, scores=[SCORE]))
    progress.show(row(30, scores=[]))
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "step 1/40  loss 0.5  N 11  mu 0.9  800 images/s",
        "step 10/40  loss 0.5  N 11  mu 0.9  800 images/s  left 00:06",
        "step 20/40  FD-digits-9 (heun:18) 1.5",
    ]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(40)
    progress.show(row(10))
    progress.show(row(20, scores=[SCORE]))
    progress.show(row(20))
    progress.close()
    said = capsys.readouterr().err
    assert "20/40" in said
    assert "N 11" in said
    assert "FD-digits-9 (heun:18) 1.5" in said


def test_progress_is_a_line_for_a_tenth_and_at_most_one_a_second(capsys, monkeypatch):
    clock = iter([0.0, *(0.3 * second for second in range(1, 11))])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with shown("image") as told:
        for done in range(1, 11):
            told(done, 10)
    assert capsys.readouterr().err.splitlines() == ["image 4 of 10", "image 8 of 10"]


def test_rows_are_followed_once_even_if_a_resume_says_them_again(tmp_path):
    run, seen = RunDirectory(tmp_path), []
    run.append_metrics(row(10))
    with followed(run, lambda new: seen.append(new["step"])):
        for step in (20, 30):
            run.append_metrics(row(step))
        run.forget_metrics_after(20)
        run.append_metrics(row(30))
        run.append_metrics(row(40))
    assert seen == [20, 30, 40], "10 was there before"


def test_a_consumer_that_raises_is_heard_of_and_stops_no_other(tmp_path, capsys):
    run, seen, told = RunDirectory(tmp_path), [], []

    def scheduler(new):
        told.append(new["step"])
        raise ConnectionError("the study is out of reach")

    def follow():
        with followed(run, scheduler, lambda new: seen.append(new["step"])):
            for step in (10, 20, 30):
                run.append_metrics(row(step))

    with pytest.raises(ConnectionError, match="out of reach"):
        follow()
    assert seen == [10, 20, 30]
    assert told == [10]
    assert "following the log failed: ConnectionError: the study is out of reach" in capsys.readouterr().err


def test_the_error_of_the_training_comes_first(tmp_path):
    run = RunDirectory(tmp_path)

    def fail(new):
        raise ConnectionError

    def training():
        with followed(run, fail):
            run.append_metrics(row(10))
            raise UserError("The loss is inf at step 10.")

    with pytest.raises(UserError, match="The loss is inf"):
        training()


@pytest.mark.parametrize(("answer", "stops"), [(True, True), (False, False), (ConnectionError(), True)])
def test_a_training_is_stopped_when_its_watcher_says_so_or_fails(answer, stops, tmp_path):
    def watch(new):
        if isinstance(answer, Exception):
            raise answer
        return answer

    run = object.__new__(Run)
    run.run, run.watch = RunDirectory(tmp_path), watch
    with contextlib.suppress(ConnectionError):
        run._request_stop(row(10))
    assert run.run.stop_file.exists() == stops
