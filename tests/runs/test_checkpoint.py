"""Checkpoints are whole or not there, the right ones are kept, and nothing in them unpickles."""

import errno
import os

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.score import COMPARED, DESCRIPTIVE, Score
from cm_ray.runs.checkpoint import Checkpoint, CheckpointStore
from cm_ray.storage import files


def checkpoint(step):
    return Checkpoint(
        step, {"student/w": torch.full((3,), float(step)), "ema0/w": torch.zeros(3)}, {"scaler": {}}
    )


def score(value, **key):
    numbers = dict.fromkeys(("n", "seed", "nfe"), 1)
    entries = dict.fromkeys((*COMPARED, *DESCRIPTIVE), "x") | numbers | key
    return Score(value=value, key=entries)


def saved(folder, steps, keep=2, scores=None):
    store = CheckpointStore(folder, keep)
    for step in steps:
        store.save(checkpoint(step))
        store.wait()
        if scores and step in scores:
            store.offer_best(step, score(scores[step]))
    return store


def test_there_and_back(tmp_path):
    store = saved(tmp_path, [5])
    again = store.load(5)
    assert (again.step, again.extra) == (5, {"scaler": {}})
    assert again.group("student")["w"].tolist() == [5.0] * 3
    assert set(again.group("ema0")) == {"w"}
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


def test_the_last_and_the_best_are_kept(tmp_path):
    store = saved(tmp_path, [10, 20, 30, 40, 50], scores={10: 3.0, 20: 1.0, 40: 2.0})
    assert store.steps() == [20, 40, 50]
    assert store.best_step() == 20
    store.forget_after(15)
    assert store.best_step() is None


def test_a_best_score_of_another_key_does_not_count(tmp_path):
    store = saved(tmp_path, [10, 20], scores={10: 1.0})
    store.offer_best(20, score(5.0, n=2))
    assert store.best_step() == 20


def test_leftovers_of_killed_writers_go(tmp_path):
    store = saved(tmp_path, [1])
    (tmp_path / ".step-00000002.abc.part").mkdir()
    store.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_without_scores_only_the_last_are_kept(tmp_path):
    assert saved(tmp_path, [1, 2, 3], keep=1).steps() == [3]


def test_a_half_written_checkpoint_is_none(tmp_path):
    store = saved(tmp_path, [1])
    (tmp_path / ".step-00000002.99.part").mkdir()
    (tmp_path / ".step-00000002.99.part" / "state.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000003").mkdir()  # as if the rename had come before the content
    assert store.steps() == [1]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    store = saved(tmp_path, [1])

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "sync", full)
    store.save(checkpoint(2))
    with pytest.raises(UserError, match=r"The disk is full: .*step-00000002 was not written"):
        store.wait()
    monkeypatch.undo()
    assert store.steps() == [1]
    assert store.load(1).group("student")["w"].tolist() == [1.0] * 3
    assert not list(tmp_path.glob(".*part"))


def test_a_really_full_device_is_one_sentence(tmp_path):
    def fill():
        with files.written_aside(tmp_path / "x") as aside:
            aside.symlink_to("/dev/full")
            aside.write_bytes(b"x")

    with pytest.raises(UserError, match="The disk is full"):
        fill()
    assert not list(tmp_path.iterdir())


def test_a_broken_checkpoint_is_named(tmp_path):
    store = saved(tmp_path, [1])
    state = tmp_path / "step-00000001" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"The checkpoint .*step-00000001 is damaged .* remove it"):
        store.load(1)


def test_an_error_of_the_writer_reaches_the_next_call(tmp_path):
    store = CheckpointStore(tmp_path / "file", 1)
    (tmp_path / "file").write_text("in the way")
    store.save(checkpoint(1))
    with pytest.raises(OSError, match=r"(?i)exists|not a directory"):
        store.close()
