"""The notebooks of the gallery run, in a short form of each."""

import re

import pytest

from tests.docs.documents import ROOT

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "docs" / "gallery").glob("*.py"))}
TINY = {
    "steps": 20,
    "batch_size": 8,
    "network.channels": 8,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "evaluation.extractor": "none",
    "evaluation.every": 0,
}
SHORT = {
    "digits": {"OUT, CHANGES": f"'out', {TINY}"},
    "distillation": {"OUT, CHANGES": f"'out', {TINY}"},
    "own_folder": {"OUT, HOURS": "'out', '0.05'"},
    "own_network": {"STEPS": "5"},
}
"""Other values of the names that a notebook begins with."""
SLOW = ("distillation", "own_folder")
"""Those that take most of a minute; their commands have quick tests of their own."""


def shortened(name):
    """Return the code of a notebook with the values of its short form."""
    code = NOTEBOOKS[name].read_text()
    for names, value in SHORT[name].items():
        line = f"{names} = {value}"
        code, count = re.subn(f"^{names} = .*$", lambda _, line=line: line, code, flags=re.MULTILINE)
        assert count == 1, f"{names} is set once"
    return code


def test_each_has_a_short_form_and_a_place_on_the_page():
    page = (ROOT / "docs" / "gallery" / "index.md").read_text()
    assert SHORT.keys() == NOTEBOOKS.keys() == {*re.findall(r"{literalinclude} (\w+)\.py", page)}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in SHORT]
)
def test_a_notebook_runs_in_a_short_form(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(shortened(name), str(NOTEBOOKS[name]), "exec"), {"__name__": "__main__"})
