"""Every layout in docs/own_images.md is read as the document says, as a folder and as an archive."""

import re
from dataclasses import dataclass

import pytest

from cm_ray.command_line import main
from cm_ray.data.open_source import open_source
from tests.data.trees import image_bytes, left, plant, seen, tarred, zipped
from tests.docs.documents import ROOT, blocks

FORMATS = {"jpg": "jpeg", "jpeg": "jpeg", "ppm": "ppm", "webp": "webp"}
OUTCOMES = ("class ", "no class", "left out", "other split", "contains ")


@dataclass
class Example:
    """A block of the document: the files of a data set and what they are."""

    name: str
    split: str
    files: dict[str, str]
    """Outcome of each file."""

    def __str__(self):
        return f"{self.name}-{self.split or 'default'}"

    def contents(self):
        """The files with their contents; the n-th image is n * 8, so that it can be told after JPEG."""
        found = {}
        for number, (path, outcome) in enumerate(self.files.items()):
            format = FORMATS.get(path.rsplit(".", 1)[-1].lower(), "png")
            if outcome.startswith("contains "):
                found[path] = outcome.removeprefix("contains ").replace("; ", "\n")
            elif re.search(r"\.(txt|xml)$", path):
                found[path] = "text"
            else:
                found[path] = image_bytes(8 * number, format)
        return found

    def classes(self):
        """The class of each image that is to be read, None without, in the order of the images."""
        read = [outcome for outcome in self.files.values() if outcome.startswith(("class ", "no class"))]
        return [outcome.removeprefix("class ") if outcome != "no class" else None for outcome in read]


def examples():
    found = []
    for block in blocks(ROOT / "docs" / "own_images.md", "text"):
        head, *lines = block.splitlines()
        name, _, split = head.partition(" --split ")
        files = dict(re.fullmatch(r"  (\S+) +(.*)", line).groups() for line in lines)
        assert all(outcome.startswith(OUTCOMES) for outcome in files.values())
        found.append(Example(name.removesuffix("/"), split, files))
    return found


@pytest.mark.parametrize("said", blocks(ROOT / "docs" / "own_images.md", "console"))
def test_surveys_are_as_shown(said, tmp_path, monkeypatch, capsys):
    words = said.splitlines()[0].removeprefix("$ cm-ray ").split()
    split = words[words.index("--split") + 1] if "--split" in words else ""
    (example,) = (each for each in examples() if (each.name, each.split) == (words[1], split))
    plant(tmp_path / example.name, example.contents())
    monkeypatch.chdir(tmp_path)
    assert main.run(words) == 0
    assert capsys.readouterr().out.splitlines() == said.splitlines()[1:]


def test_all_examples_are_found():
    assert len(examples()) >= 14
    assert {"cifar100", "tiny-imagenet-200", "imagenet", "edm"} < {example.name for example in examples()}


def forms():
    """Every example in every form; samples lie in tar archives alone."""
    return [
        pytest.param(each, form, id=f"{each}-{form}")
        for each in examples()
        for form in ("folder", "zip", "tar")
        if form == "tar" or not each.name.endswith(".tar")
    ]


@pytest.mark.parametrize(("example", "form"), forms())
def test_example(example, form, tmp_path):
    if form != "folder":
        write = zipped if form == "zip" else tarred
        path = write(tmp_path / f"{example.name}.{form}", example.contents())
    else:
        path = plant(tmp_path / example.name, example.contents())
    source = open_source(str(path), example.split)
    found = [str(name) if isinstance(name, int) else name for name in seen(source).values()]
    assert found == example.classes()
    told = [outcome for file, outcome in example.files.items() if "/." not in file and outcome == "left out"]
    if "other split" in example.files.values():
        told.append("other splits")
    assert bool(left(source)) == bool(told)
