"""Places of runs: folders, and never what only looks like one."""

from pathlib import Path

import pytest

import cm_ray as cm
from cm_ray.runs.places import run_place
from cm_ray.storage.files import cache_root


@pytest.mark.parametrize("address", ["s3://bucket/runs", "gs://bucket", Path("s3://bucket/runs"), "abfs:/x"])
def test_addresses_of_object_stores_are_refused_and_no_folder_is_made_of_them(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cm.UserError, match="is an address, not a folder"):
        run_place(address, "x")
    monkeypatch.setenv("CM_RAY_RUNS", str(address))
    with pytest.raises(cm.UserError, match="is an address, not a folder"):
        run_place("", "x")
    monkeypatch.setenv("CM_RAY_CACHE", str(address))
    with pytest.raises(cm.UserError, match="is an address, not a folder"):
        cache_root()
    assert list(tmp_path.iterdir()) == []


def test_folders_are_absolute_and_a_name_has_a_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CM_RAY_RUNS", raising=False)
    assert run_place("a/b", "x") == tmp_path / "a" / "b"
    assert run_place("", "x") == tmp_path / "runs" / "x"
    assert run_place("~/x", "y") == Path.home() / "x"
