"""Tests of replacing a folder: its path never lacks a folder while the older one is removed."""

import os
import shutil
from pathlib import Path

import pytest

from cm_ray.storage import renaming
from cm_ray.storage.files import folder_written_aside


def _write(folder: Path, text: str) -> None:
    with folder_written_aside(folder) as aside:
        (aside / "a").write_text(text)
        (aside / "b").write_text(text)


@pytest.fixture(params=["exchange", "rename"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system that can exchange two names, and one that cannot."""
    if request.param == "rename":
        monkeypatch.setattr(renaming, "_exchanged", lambda one, other: False)
    return str(request.param)


@pytest.mark.usefixtures("file_system")
def test_a_folder_is_whole_while_the_older_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen, rmtree = tmp_path / "model", [], shutil.rmtree
    _write(folder, "old")

    def watched(path: Path, ignore_errors: bool = False) -> None:
        rmtree(path, ignore_errors=ignore_errors)
        seen.append([(folder / name).read_text() for name in "ab"] if folder.is_dir() else [])

    monkeypatch.setattr(shutil, "rmtree", watched)
    _write(folder, "new")
    assert seen == [["new", "new"]]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_two_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    _write(one, "1")
    _write(other, "2")
    if not renaming._exchanged(one, other):
        pytest.skip("this file system cannot exchange two names")
    assert (one / "a").read_text() == "2"
    assert (other / "a").read_text() == "1"


def test_the_older_folder_stays_when_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "model", Path.rename
    _write(folder, "old")

    def failing(self: Path, target: Path) -> Path:
        if os.fspath(target) == os.fspath(folder) and not self.name.endswith(".old.part"):
            raise OSError("planted")
        return rename(self, target)

    monkeypatch.setattr(renaming, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="planted"):
        _write(folder, "new")
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
