"""The README is short, and its links are right; so are the files beside it."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import check_jsonschema
import jsonschema
import pytest
import yaml

from tests.docs.documents import ROOT, anchors

README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = re.findall(r"\]\(([^)\s]+)\)", README)


def test_the_readme_has_200_lines_at_most():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_links_lead_to_files_of_the_repository(target):
    if target.startswith("https://"):
        assert target.startswith("https://github.com/"), "threads of others"
    else:
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file()
        assert not anchor or anchor in anchors(ROOT / path)


def test_they_become_absolute_in_one_command(tmp_path):
    for name in ("Makefile", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "-s", "address", "ADDRESS=https://git.example/a/b"]
    subprocess.run(command, cwd=tmp_path, check=True)
    changed = re.findall(r"\]\(([^)\s]+)\)", (tmp_path / "README.md").read_text())
    for before, after in zip(TARGETS, changed, strict=True):
        ours = f"https://git.example/a/b/blob/main/{before}" + "?raw=true" * before.endswith(".png")
        assert after == (before if before.startswith("https://") else ours)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == "https://git.example/a/b"


def schema(name):
    """Return a schema that check-jsonschema carries."""
    folder = Path(check_jsonschema.__path__[0]) / "builtin_schemas" / "vendor"
    return json.loads((folder / f"{name}.json").read_text())


def test_the_citation_has_the_version_and_the_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    jsonschema.validate(citation, schema("citation-file-format"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


@pytest.mark.parametrize("name", ["bug", "score", "feature", "config"])
def test_issue_templates_are_forms(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    jsonschema.validate(form, schema(f"github-issue-{'config' if name == 'config' else 'forms'}"))
