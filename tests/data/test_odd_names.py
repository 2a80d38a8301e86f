"""Names of files that are not UTF-8, or that a terminal would obey, are read, and shown as escapes."""

import json
import os
from pathlib import Path

import pytest

from cm_ray.command_line.main import run
from cm_ray.command_line.options import exit_code
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest
from cm_ray.errors import UserError
from cm_ray.storage.files import read_json, write_json
from tests.data.forms import shards_of
from tests.data.trees import content, seen

LATIN = b"caf\xe9"


@pytest.fixture
def odd(tmp_path):
    """Two classes of odd names in a folder of an odd name."""
    root = os.path.join(os.fsencode(tmp_path), b"set\xff\n\x1b[31m")
    for path, value in {LATIN + b"/a\xfe.png": 1, LATIN + b"/b.png": 2, b"dog/a\nb.png": 3}.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(content(value))
    return os.fsdecode(root)


def check_text(text):
    """A text that can be encoded, on one line, without control characters."""
    text.encode()
    assert text.isprintable(), text


def test_images_and_classes(odd):
    source = open_source(odd)
    assert seen(source) == {1: r"caf\xe9", 2: r"caf\xe9", 3: "dog"}
    for text in (source.name, *source.class_names):
        check_text(text)
    assert source.name == r"set\xff\n\x1b[31m"


def test_identity(odd):
    before = open_source(odd).identity()
    assert open_source(odd).identity() == before
    os.rename(os.path.join(odd, "dog"), os.path.join(odd, "d\udcff"))
    assert open_source(odd).identity() != before


def test_shards_and_their_manifest(odd, tmp_path):
    folder = Path(shards_of(open_source(odd), tmp_path / "shards"))
    manifest = Manifest.load(folder)
    assert (manifest.class_names, manifest.source) == ((r"caf\xe9", "dog"), r"set\xff\n\x1b[31m")
    json.loads((folder / "manifest.json").read_bytes().decode())
    assert load_images(folder).fingerprint == load_images(odd).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: open(os.path.join(root, "b\udcff.png"), "wb").close(), r"directly \(b\\xff.png\)"),
        (
            lambda root: open(os.path.join(root, "dog", "x\udcff.png"), "wb").close(),
            r"x\\xff.png is not a read",
        ),
        (
            lambda root: os.symlink("no", os.path.join(root, "dog", "l\udcff.png")),
            r"l\\xff.png is a link that",
        ),
        (lambda root: os.mkdir(os.path.join(root, "cafe\u0301")), None),
        (lambda root: open(os.path.join(root, "dog", "x\udcff.heic"), "wb").close(), None),
    ],
)
def test_messages(odd, change, message):
    change(odd)
    if message is None:
        for each in open_source(odd).left_out:
            check_text(f"{each.what} {each.why}")
        return
    with pytest.raises(UserError, match=message) as raised:
        seen(open_source(odd))
    check_text(str(raised.value))


@pytest.mark.parametrize("asked", ["banana", "ban\udcff"])
def test_a_split_that_is_not_there(odd, asked):
    with pytest.raises(UserError, match="has no split") as raised:
        open_source(odd, asked)
    check_text(str(raised.value))
    with pytest.raises(UserError, match="There is no") as raised:
        open_source(odd + "\udcff")
    check_text(str(raised.value))


def test_the_command(odd, tmp_path, capsys):
    assert run(["shards", odd + "/gone\udcff", "--out", str(tmp_path / "x")]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    check_text(captured.err.strip())


def test_every_job_can_print_a_name(capsys):
    assert exit_code(lambda: print("caf\udce9")) == 0
    assert capsys.readouterr().out == "caf\\udce9\n"


def test_a_path_in_json(tmp_path):
    value = {"path": "set\udcff", "name": "café"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    write_json(tmp_path / "x.json", {"name": "café"})
    assert "café" in (tmp_path / "x.json").read_text()
