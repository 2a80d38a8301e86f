"""jobs/memory.py: a table of what trainings need; bad input says what to do."""

import runpy
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "jobs" / "memory.py"


@pytest.fixture
def job(monkeypatch, capsys):
    def run(*options):
        monkeypatch.setattr(sys, "argv", [JOB.name, *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOB), run_name="__main__")
        return ended.value.code, capsys.readouterr()

    return run


def test_a_row_with_and_without_recomputing(job):
    code, said = job("ct_digits", "--gib", "0.1", "--num-workers", "1", "--device", "cpu")
    assert code == 0
    _, _, plain, thrifty = [line.split("|")[1:-1] for line in said.out.splitlines()]
    assert plain[2].strip() == thrifty[2].strip() == "0.83 M"
    few, many = (int(row[5]) for row in (plain, thrifty))
    assert 4 < few < many <= 128
    assert int(plain[6]) >= 128 / few, "so many passes make a batch of 128"


@pytest.mark.parametrize(("workers", "share"), [(128, 1), (64, 2)])
def test_shares_that_hardly_split(job, workers, share):
    code, said = job("ct_digits", "--gib", "0.2", "--num-workers", str(workers), "--device", "cpu")
    assert code == 0, said.err
    _, _, plain, _ = [line.split("|")[1:-1] for line in said.out.splitlines()]
    assert [int(cell) for cell in plain[5:7]] == [share, 1]


def test_what_cannot_fit_is_said(job):
    _, said = job("ct_digits", "--gib", "0.001")
    assert said.out.count("does not fit") == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["ct_digit"], "There is no recipe 'ct_digit': did you mean 'ct_digits'?"),
        (["ct_digits", "--gib", "0"], "--gib must be positive"),
        (["ct_digits", "--num-workers", "7"], "--num-workers 7 does not divide the batch size of ct_digits"),
    ],
)
def test_bad_input_is_a_sentence(job, options, sentence):
    code, said = job(*options)
    assert code == 2
    assert sentence in said.err
