"""A bar on a terminal, lines elsewhere, every row once."""

import sys

from cm_ray.runs.console import Progress, followed
from cm_ray.runs.directory import RunDirectory

SCORE = {"name": "FD-digits-9", "value": 1.5, "key": {"sampler": "heun:18"}}


def row(step, **more):
    training = {"loss": 0.5, "num_scales": 11, "target_decay": 0.9, "images_per_s": 800.0, "seconds": 2.0}
    return {"step": step, **(more or training)}


def test_lines(capsys):
    progress = Progress(40)
    progress.show(row(10))
    progress.show(row(20, scores=[SCORE]))
    progress.show(row(30, scores=[]))
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
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
