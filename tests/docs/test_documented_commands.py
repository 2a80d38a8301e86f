"""The documents say what works: commands parse, snippets name what there is, links lead somewhere."""

import ast
import importlib
import inspect
import os
import re
import typing

import pytest

import cm_ray as cm
from cm_ray.command_line.main import COMMANDS
from cm_ray.command_line.recipe_options import ALIASES, option
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings import choices
from cm_ray.settings.tree import all_paths, fields_of
from tests.docs.command_check import check_command
from tests.docs.documents import DOCUMENTS, ROOT, anchors, blocks, commands, inline, links, snippets

FOREIGN_OPTIONS = {
    *("--working-dir", "--env-manager", "--scale", "--volumes"),
    *("--debug", "--dry-run", "--config", "--help"),
}
"""Options of other programs, and those that every command takes."""
VALUES = {
    "model": "cm_ray.api.run.Run",
    "run": "cm_ray.api.run.Run",
    "samples": "cm_ray.drawing.samples.Samples",
    "step": "cm_ray.training.trainer.TrainedStep",
    "trainer": "cm_ray.training.trainer.Trainer",
}
"""Classes of the variables in snippets, by their names."""
SPACE_FILE = "my_space.py"


@pytest.fixture(scope="module", autouse=True)
def documented_space(tmp_path_factory):
    """A folder with the search space that docs/sweeps.md shows, where commands find it."""
    folder = tmp_path_factory.mktemp("documented")
    (space,) = (text for text in blocks(ROOT / "docs" / "sweeps.md", "python") if "SPACE = " in text)
    (folder / SPACE_FILE).write_text(space)
    before = os.getcwd()
    os.chdir(folder)
    yield
    os.chdir(before)


@pytest.mark.parametrize("command", commands(), ids=str)
def test_commands_parse(command):
    check_command(command.text)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("python jobs/ct_cifar.py --network.head-channels 32", "head-channels belongs to network adm"),
        ("python jobs/make_shards.py /data --outt x", "--outt"),
        ("python benchmarks/editing.py --modell runs/demo", "--modell"),
        ("ray job submit --working-dir . -- python jobs/sweep.py digits_icts", "There is no search space"),
        ("cm-ray train cd_digits", r"teacher\.model is missing"),
        ("cm-ray sample runs/demo --sampler huen:4", "There is no sampler"),
        ("cm-ray evaluate runs/demo", "there is no command"),
        ("make tset", "there is no target"),
        ("pip install 'cm_ray[trian]'", "trian"),
    ],
)
def test_wrong_commands_do_not_parse(line, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_command(line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_options_files_and_links_exist(document):
    known = known_options()
    for text in inline(document):
        for word in re.findall(r"(?:^|(?<=\s))--[a-z][\w.-]*", text):
            assert word.rstrip(".") in known, f"{word} is no option"
        for path in re.findall(r"^[\w./-]+\.(?:py|yaml|toml|txt)$", text):
            places = (ROOT / path, ROOT / "cm_ray" / path, document.parent / path, ROOT / "docs" / path)
            assert path == SPACE_FILE or any(place.is_file() for place in places), f"{path} does not exist"
        if text.startswith("cm-ray "):
            assert text.split()[1] in {*COMMANDS, "COMMAND"}, text
    for target in links(document):
        path, _, anchor = target.partition("#")
        place = document.parent / path if path else document
        assert place.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(place), f"{path} has no heading {anchor}"


def known_options():
    """Return all options of all commands and recipes."""
    found = {*FOREIGN_OPTIONS, *ALIASES.values(), *map(option, all_paths(Recipe))}
    for command in COMMANDS.values():
        parser = imported(command.parse)
        hint = parser if isinstance(parser, type) else typing.get_type_hints(parser)["return"]
        for settings in typing.get_args(hint) or (hint,):
            if settings is not Recipe:
                found |= set(map(option, all_paths(settings)))
    for text in (path.read_text() for path in (ROOT / "benchmarks").glob("*.py")):
        found |= {option(name) for name in re.findall(r"^    (\w+): .* = ", text, re.MULTILINE)}
    return found


@pytest.mark.parametrize("snippet", snippets(), ids=str)
def test_snippets_name_what_there_is(snippet):
    check_snippet(snippet.text)


@pytest.mark.parametrize(
    "text",
    [
        "cm.trian('ict_digits')",
        "cm.train('ict_digits', stepz=3)",
        "cm.recipes.ict_digit()",
        "model.smaple(3)",
        "model.edit('inpaint', image, maks=mask)",
        "step.losses",
        "from cm_ray.core.distance import Huber",
    ],
)
def test_wrong_snippets_are_found(text):
    with pytest.raises(AssertionError):
        check_snippet(text)


def check_snippet(text):
    """Check the names of cm_ray in Python source, and the keywords of its functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "cm_ray":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            check_attribute(node.value.id, node.attr)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("cm.recipes", "cm.cluster"):
            room = importlib.import_module(ast.unparse(node.value).replace("cm.", "cm_ray."))
            assert node.attr in room.__all__, ast.unparse(node)
        if isinstance(node, ast.Call):
            check_keywords(node)


def check_attribute(name, attribute):
    """Check that `name.attribute` exists, as far as the class of `name` is known."""
    if name == "cm":
        assert attribute in cm.__all__, f"cm.{attribute}"
    elif name in VALUES:
        kind = imported(VALUES[name])
        ours = [each for each in kind.__mro__ if each.__module__.startswith("cm_ray.")]
        fields = {field for each in ours for field in inspect.get_annotations(each)}
        made = {field for each in ours for field in re.findall(r"self\.(\w+)", inspect.getsource(each))}
        assert hasattr(kind, attribute) or attribute in fields | made, f"{name}.{attribute}"


def check_keywords(call):
    """Check that a function of cm_ray takes the keywords that it is called with."""
    function = called(call.func)
    if function is None:
        return
    parameters = inspect.signature(function).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    for keyword in call.keywords:
        assert keyword.arg is None or keyword.arg in parameters, ast.unparse(call)


def called(node):
    """Return the function that a snippet calls by a dotted name, if it is one of cm_ray."""
    first, *names = ast.unparse(node).split(".")
    if first not in ("cm", *VALUES) or not all(name.isidentifier() for name in names):
        return None
    found = cm if first == "cm" else imported(VALUES[first])
    for name in names:
        found = getattr(found, name, None)
    return found if callable(found) else None


def imported(dotted):
    """Return a class or function by its dotted name."""
    place, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(place), name)


def test_every_word_of_a_setting_is_documented():
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(r"^\| `--([\w.-]+)`(?:, of [^|]*)? \| `([\w+-]+)` \|", text, re.MULTILINE)
    documented = {(path.replace("-", "_"), word) for path, word in rows}
    there = {(path, word) for path, kind in kinds(Recipe) for word in choices.classes_of(kind)}
    assert documented == there


def kinds(cls, prefix=""):
    """Return the path and the kind of every choice in a tree of settings; methods have kinds of their own."""
    found = set()
    for item in fields_of(cls):
        if item.classes:
            found.add((prefix + item.name, item.hint))
        for each in (*item.classes.values(), *([item.hint] if item.nested and not item.classes else [])):
            found |= kinds(each, prefix + item.prefix)
    return found


def test_the_architecture_names_every_room():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path.parent for path in (ROOT / "cm_ray").glob("*/__init__.py")]
    rooms += [path.parent for path in (ROOT / "cm_ray" / "cluster").glob("*/__init__.py")]
    missing = [str(room.relative_to(ROOT / "cm_ray")) for room in rooms]
    assert [room for room in missing if f"`{room}/`" not in text] == []
    named = set(re.findall(r"`((?:[a-z_]+/)+)`", text)) - {"rounds/"}  # a folder of a run
    there = (ROOT, ROOT / "cm_ray", ROOT / "cm_ray" / "cluster")
    assert [name for name in named if not any((place / name).is_dir() for place in there)] == []
