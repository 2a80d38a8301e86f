"""Waiting ends with the event, with the end of the process, or after the limit."""

import subprocess
import sys

import pytest

from tests import waiting
from tests.waiting import wait_for


def test_it_ends_with_the_event():
    looks = []
    wait_for(lambda: looks.append(1) or len(looks) == 3, "the third look")
    assert len(looks) == 3


def test_it_ends_with_the_process_and_shows_its_log(tmp_path):
    (tmp_path / "log").write_text("a reason")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(AssertionError, match="the event did not happen: the process ended with 3\na reason"):
        wait_for(lambda: False, "the event", process, tmp_path / "log")


def test_the_last_deed_of_a_process_counts(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    wait_for(lambda: process.poll() is not None, "its end", process)


def test_it_ends_after_the_limit(monkeypatch):
    monkeypatch.setattr(waiting, "LIMIT_S", 0)
    with pytest.raises(AssertionError, match="the event did not happen in 0 s"):
        wait_for(lambda: False, "the event")
