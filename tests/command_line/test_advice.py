"""No message advises to set an option that the running command does not have."""

import ast
import re
from pathlib import Path

import pytest

from cm_ray.command_line.main import COMMANDS, option_paths_of, run
from cm_ray.errors import as_options, setting, spoken
from tests.docs.command_check import check_cm_ray

ROOT = Path(__file__).parents[2] / "cm_ray"
FILES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in ROOT.rglob("*.py")}
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*(?:\.[a-z0-9-]+)*)")
NOT_MESSAGES = {
    "runs/lineage.py": {"always", "dirty", "abbrev", "exclude", "porcelain"},  # options of git
    "recipes/measuring.py": {"wait-for-nodes"},  # the name of an option
    "budget/memory_table.py": {"accumulate"},  # of the training that the table is about
    "evaluation/card.py": {"samples", "out"},  # of cm-ray sample, for readers of a model's card
    "reports/time_points_report.py": {"ts", "boundaries"},  # of cm-ray sample, in a report
}
"""Literals outside of the commands that name options, by file; all are options of some command, or git's."""
WORDS = {"train": ["train", "ct_digits"]}
"""The words before the options of a command; of others its name."""


def calls(tree, function):
    """The calls of a function in a module."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function
    ]


def texts(tree):
    """The string literals of a module that are neither docstrings nor words of printed commands."""
    documents = {id(word) for call in calls(tree, "command") for word in call.args}
    documents |= {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def marks():
    """The arguments of all calls of `setting` with literal arguments."""
    for tree in FILES.values():
        for node in calls(tree, "setting"):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if all(isinstance(each, ast.Constant) for each in given):
                yield (
                    tuple(each.value for each in node.args),
                    {keyword.arg: keyword.value.value for keyword in node.keywords},
                )


MARKS = list(marks())


def shown_options(name, capsys):
    """The options in the help of a command, of the recipe ct_digits for training."""
    with pytest.raises(SystemExit):
        run([*WORDS.get(name, [name]), "--help"])
    help_text = capsys.readouterr().out
    found = re.findall(r"(?:^|[│,|] ?|\s)--([a-z][a-z0-9.-]*)", help_text)
    return {option.replace("-", "_") for option in found}


def test_the_scan_sees_messages():
    assert len(MARKS) > 40
    assert (("run_dir",), {"python": "directory (out)", "otherwise": "directory"}) in MARKS


@pytest.mark.parametrize("file", FILES)
def test_only_commands_write_dashes(file):
    named = {option for text in texts(FILES[file]) for option in OPTION.findall(text)}
    if not file.startswith("command_line/"):
        assert named <= NOT_MESSAGES.get(file, set()), "name it by cm_ray.errors.setting"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "sweep")])
def test_the_settings_of_a_command_name_its_options(name):
    module = COMMANDS[name].parse.rpartition(".")[0].replace(".", "/").removeprefix("cm_ray/") + ".py"
    named = {option.replace("-", "_") for text in texts(FILES[module]) for option in OPTION.findall(text)}
    others = {"network.gradient_checkpointing", "accumulate"} if name == "memory" else set()
    assert named - others <= {*option_paths_of(name)}


def test_every_mark_is_an_option_of_a_command():
    known = {path for name in COMMANDS for path in option_paths_of(name)}
    assert not {names for names, _ in MARKS if not {*names} & known}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_mark_is_an_option_of_the_running_command_or_has_no_dashes(name, capsys):
    shown, paths = shown_options(name, capsys), {*option_paths_of(name)}
    assert (
        paths <= shown if name != "train" else {"run_dir", "steps", "data", "tracking_uri"} <= paths & shown
    )
    for names, more in MARKS:
        with as_options(lambda: option_paths_of(name)):
            text = spoken(setting(*names, **more))
        if text.startswith("--"):
            assert text[2:].replace("-", "_") in paths
            assert text[2:].replace("-", "_") in shown or name == "train"
        assert "--" not in spoken(setting(*names, **more)), "Python has no options"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["track", "nowhere"],
            "nowhere is not a run directory, as it has no config.json; choose another one.",
        ),
        (["sample", "models:/x/1"], "There is no MLflow store at {}; give its address as --tracking-uri."),
        (["sweep", "digits_ict", "--set", "stepz=3"], "stepz is not a setting: did you mean 'steps'?"),
        (["paper-table", "--set", "stepz=3"], "stepz is not a setting: did you mean 'steps'?"),
        (["paper-table", "--set", "steps"], "--set 'steps' must be path=value, such as network.channels=16."),
        (
            ["train", "ct_digits", "--batch-size", "7", "--num-workers", "2"],
            "--batch-size 7 does not split into 2",
        ),
    ],
)
def test_sentences_of_commands(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("CM_RAY_RUNS", str(tmp_path))
    assert run(words) == 2
    assert sentence.format(tmp_path / "mlflow.db") in capsys.readouterr().err


def test_commands_in_messages_are_commands():
    printed = [
        [str(each.value) if isinstance(each, ast.Constant) else "runs/demo" for each in call.args]
        for tree in FILES.values()
        for call in calls(tree, "command")
    ]
    assert len(printed) >= 5
    for program, *words in printed:
        if program == "cm-ray":
            check_cm_ray(words)
        else:
            assert program in ("optuna-dashboard", "tensorboard")
