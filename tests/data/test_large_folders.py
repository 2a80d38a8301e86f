"""Opening a folder looks at each folder once and at no file, whatever their number."""

import builtins
import os
from collections import Counter

import pytest

from cm_ray.data.open_source import open_source
from tests.data.trees import image_bytes, plant


@pytest.fixture
def calls(monkeypatch):
    """The questions to the file system, with their paths."""
    seen = Counter()

    def counted(module, name):
        original = getattr(module, name)

        def call(path, *args, **kwargs):
            seen[name, str(path)] += 1
            return original(path, *args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for name in ("stat", "lstat", "scandir", "open"):
        counted(os, name)
    counted(builtins, "open")
    return seen


def tree(root, files):
    """Three classes in two splits, of 1-byte files: whoever reads one as an image fails."""
    return plant(
        root,
        {
            f"{split}/{name}/{i}.png": b"x"
            for split in ("train", "test")
            for name in "abc"
            for i in range(files)
        },
    )


def test_no_file_is_looked_at(tmp_path, calls):
    root = tree(tmp_path / "set", 50)
    calls.clear()
    source = open_source(str(root))
    assert len(source.files) == 150
    assert not [path for (_, path) in calls if path.endswith(".png")]
    listed = {
        path.removeprefix(f"{root}"): count for (name, path), count in calls.items() if name == "scandir"
    }
    assert listed == dict.fromkeys(["", "/train", "/train/a", "/train/b", "/train/c", "/test", "/test/a"], 1)


def test_calls_do_not_grow_with_the_number_of_files(tmp_path, calls):
    counts = []
    for files in (1, 200):
        root = tree(tmp_path / f"set{files}", files)
        calls.clear()
        open_source(str(root))
        counts.append(calls.total())
    assert counts[0] == counts[1]


def test_only_files_of_unknown_endings_are_opened_and_once(tmp_path, calls):
    png = image_bytes(1)
    files = {"a/1.png": b"x", "a/2": png, "b/3.unknown": png, "b/4.txt": b"x", "b/5.heic": b"x", "c/6": png}
    root = plant(tmp_path / "set", files)
    calls.clear()
    assert len(open_source(str(root)).files) == 4
    read = {path.removeprefix(f"{root}/"): count for (name, path), count in calls.items() if name == "open"}
    assert read == {"a/2": 1, "b/3.unknown": 1, "c/6": 1}
