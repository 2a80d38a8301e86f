"""The site is built without a warning, its links lead somewhere, and every job and public name is in it."""

import re
import subprocess
import sys

import pytest

import cm_ray as cm
from tests.absent import installed
from tests.docs.documents import ROOT

sys.path.append(str(ROOT / "docs" / "_ext"))
import links

installed("myst_nb", reason="the generator of the site is an extra: pip install 'cm_ray[docs]'")
SPHINX = ("--builder", "html", "--fail-on-warning", "--keep-going", "--fresh-env", "--quiet")


def build(source, out):
    """Build a site as `make docs` does; return the exit status and what was said."""
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", *SPHINX, str(source), str(out)], capture_output=True, text=True
    )
    return made.returncode, made.stdout + made.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    status, said = build(ROOT / "docs", out)
    assert status == 0, said
    return out


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    assert links.faults(site) == []


def test_every_job_is_shown_with_its_options(site):
    text = (site / "jobs.html").read_text()
    scripts = [path.name for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__"]
    assert [name for name in scripts if f"jobs/{name} --help" not in text] == []
    assert text.count("usage: python jobs/") >= len(scripts) - 1  # jobs/train.py lists the recipes


def test_every_public_name_is_in_the_reference(site):
    shown = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    classes = set(re.findall(r'id="cm_ray\.[\w.]+\.(\w+)"', shown))
    assert set(cm.__all__) - {"cluster", "recipes"} - classes == set()
    assert set(cm.recipes.__all__) - {"RECIPES", "named"} - classes == set()
    assert {f"cm_ray.cluster.interface.{name}" for name in cm.cluster.__all__} <= set(
        re.findall(r'id="(cm_ray\.[\w.]+)"', shown)
    )


def test_equations_are_drawn_without_scripts(site):
    text = (site / "methods" / "ct.html").read_text()
    assert "<math" in text
    assert "mathjax" not in "".join(re.findall("<script[^>]*>", text)).lower()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A\n\n[to a page](nowhere.md)\n", "nowhere"),
        ("# A\n\n[to a heading](index.md#nowhere)\n", "nowhere"),
        ("# A\n\n![a picture](nowhere.png)\n", "nowhere.png"),
    ],
)
def test_a_link_that_leads_nowhere_ends_the_building(tmp_path, text, said):
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser']\nmyst_heading_anchors = 4\n")
    (tmp_path / "index.md").write_text(text)
    status, answer = build(tmp_path, tmp_path / "out")
    assert status != 0
    assert said in answer


def test_a_page_with_dead_links_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html">1</a><a href="a.html#c">2</a><a href="#d" id="d">3</a><img src="https://x.example/p">'
    )
    assert len(links.faults(tmp_path)) == 3
