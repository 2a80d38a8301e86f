"""An absent thing skips a test here, and fails it where the CI runs."""

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.absent import installed, shared


@pytest.mark.parametrize(("ci", "outcome"), [("true", Failed), ("", Skipped), (None, Skipped)])
def test_nothing_is_skipped_where_the_ci_runs(ci, outcome, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="there are no such data"):
        shared("data", "of-nobody", reason="there are no such data")
    with pytest.raises(outcome, match="it is an extra"):
        installed("no_such_package", reason="it is an extra")


def test_what_is_there_is_returned(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.absent.SHARED", tmp_path)
    (tmp_path / "data").mkdir()
    assert shared("data", reason="") == tmp_path / "data"
    assert installed("json", reason="").loads("3") == 3
