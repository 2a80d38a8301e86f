"""The lineage of a run travels between checkouts and submitted jobs, which know different things of it."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cm_ray.errors import UserError
from cm_ray.runs import lineage as module
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.lineage import REVISION_VARIABLE, code_digest, lineage, write_lineage
from cm_ray.storage.files import read_json, write_json

ROOT = Path(__file__).parents[2]
DATA = SimpleNamespace(source="digits", fingerprint="ab", count=3, skipped=0, class_names=())


@pytest.fixture
def in_a_job(monkeypatch):
    """Run code that has no .git beside it, as in the package of a submitted job."""
    monkeypatch.setattr(module, "_git_revision", lambda: "")
    monkeypatch.delenv(REVISION_VARIABLE, raising=False)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def test_a_run_begun_in_a_job_goes_on_in_a_checkout_and_back(run, monkeypatch, capsys):
    monkeypatch.setattr(module, "_git_revision", lambda: "")
    write_lineage(run, DATA)
    assert "git.revision" not in read_json(run.lineage_file)
    monkeypatch.setattr(module, "_git_revision", lambda: "c0ffee")
    write_lineage(run, DATA)
    assert read_json(run.lineage_file)["continued.git.revision"] == "c0ffee"
    monkeypatch.setattr(module, "_git_revision", lambda: "")
    write_lineage(run, DATA)
    assert capsys.readouterr().err == "", "it is the same code, whether its revision is known or not"


@pytest.mark.usefixtures("in_a_job")
def test_the_revision_travels_in_a_variable(monkeypatch):
    monkeypatch.setenv(REVISION_VARIABLE, "c0ffee-dirty")
    assert lineage(DATA)["git.revision"] == "c0ffee-dirty"


@pytest.mark.usefixtures("in_a_job")
def test_other_code_and_packages_are_said(run, monkeypatch, capsys):
    write_lineage(run, DATA)
    before = read_json(run.lineage_file)
    monkeypatch.setattr(module, "code_digest", lambda: "0" * 64)
    monkeypatch.setenv(REVISION_VARIABLE, "c0ffee")
    write_json(run.lineage_file, before | {"package.torch": "1.0"})
    write_lineage(run, DATA)
    said = capsys.readouterr().err
    assert "goes on with other code than it began with" in said
    assert "git.revision: unknown then, c0ffee now" in said
    assert "package.torch: 1.0 then" in said
    assert read_json(run.lineage_file)["continued.code.sha256"] == "0" * 64
    write_json(run.lineage_file, {"data.fingerprint": "ab"})  # of an older version, which knew less
    write_lineage(run, DATA)
    assert capsys.readouterr().err == ""


def test_other_images_are_refused(run):
    write_lineage(run, DATA)
    with pytest.raises(UserError, match="was started with other images"):
        write_lineage(run, SimpleNamespace(**{**vars(DATA), "fingerprint": "cd"}))


def test_the_code_has_the_same_digest_in_another_place(tmp_path):
    copy = tmp_path / "cm_ray"
    shutil.copytree(ROOT / "cm_ray", copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest(copy) == code_digest()
    (copy / "version.py").write_text((copy / "version.py").read_text() + "# changed\n")
    assert code_digest(copy) != code_digest()


def test_the_documented_command_gives_what_the_lineage_has():
    """The two are compared as texts."""
    if subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        pytest.skip("there is no checkout")
    (line,) = [
        line
        for line in (ROOT / "docs" / "cluster.md").read_text().splitlines()
        if line.startswith(f"export {REVISION_VARIABLE}=")
    ]
    done = subprocess.run(
        ["sh", "-c", f"{line}; echo ${REVISION_VARIABLE}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == lineage(DATA)["git.revision"]
