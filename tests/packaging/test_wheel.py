"""The wheel, installed into an environment outside of the checkout, and `cm-ray` run from an empty folder."""

import contextlib
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.processes import LEAN, SMALL, end, ray_folder

ROOT = Path(__file__).parents[2]
SOURCES = ("cm_ray", "search_spaces", "pyproject.toml", "setup.py", "README.md", "LICENSE")
TINY = {
    "steps": 4,
    "batch_size": 16,
    "checkpoint.every": 4,
    "evaluation.every": 4,
    "evaluation.samples": 32,
    "network.channels": 8,
    "network.head_channels": 8,
    "network.norm_groups": 4,
}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the sources, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "src" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / "src").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / "src" / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "src")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Make an environment with the wheel alone; a .pth file lends it the packages of the running one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-compile", wheel)
    packages = installed_packages(folder)
    lent = dict.fromkeys([sysconfig.get_paths()["purelib"], *site.getsitepackages()])
    (packages / "lent.pth").write_text("\n".join(lent) + "\n")
    return folder


@pytest.fixture(scope="module")
def cm_ray(environment, tmp_path_factory):
    """Return a function that runs `cm-ray` in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp("empty")

    def run(*options):
        command = [environment / "bin" / "cm-ray", *options]
        with ray_folder() as place:
            done = subprocess.run(
                [*map(str, command)],
                cwd=folder,
                env=variables(RAY_TMPDIR=place),
                capture_output=True,
                text=True,
                timeout=500,
            )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def trained(cm_ray):
    """Train a tiny model on Ray."""
    said = cm_ray("train", "ict_digits", *SMALL, "--steps", 3, "--run-dir", "runs/tiny")
    assert "cm-ray sample" in said.stderr
    return cm_ray.folder / "runs" / "tiny"


def pip(*options):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def installed_packages(folder):
    (packages,) = folder.glob("lib/python*/site-packages")
    return packages


def variables(**more):
    """Return the environment variables without those that would make the checkout importable."""
    dropped = ("RAY_", "MLFLOW_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | LEAN | {"OMP_NUM_THREADS": "1"} | more


def test_cm_ray_is_the_only_package_that_is_installed(environment):
    packages = installed_packages(environment)
    installed = {path.name for path in packages.iterdir()} - {"lent.pth"}
    assert {name for name in installed if not name.endswith(".dist-info")} == {"cm_ray"}
    assert (packages / "cm_ray" / "py.typed").is_file()
    source = {path.relative_to(ROOT) for path in (ROOT / "cm_ray").rglob("*.py")}
    spaces = {Path("cm_ray", path.relative_to(ROOT)) for path in (ROOT / "search_spaces").glob("*.py")}
    assert {path.relative_to(packages) for path in (packages / "cm_ray").rglob("*.py")} == source | spaces


def test_the_checkout_is_not_importable(environment, tmp_path):
    code = "import cm_ray, importlib.util as u; print(cm_ray.__file__, u.find_spec('jobs'))"
    command = [environment / "bin" / "python", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=variables(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(installed_packages(environment) / "cm_ray" / "__init__.py"), "None"]


@pytest.mark.ray
def test_the_model_that_was_trained_is_sampled(cm_ray, trained):
    said = cm_ray("sample", trained, "--samples", 4, "--nfe", 2, "--out", "drawn")
    assert said.stdout.split() == ["drawn.png", "drawn.npz"]
    assert np.load(cm_ray.folder / "drawn.npz")["arr_0"].shape == (4, 8, 8, 1)


def test_a_search_space_is_found_by_its_name(cm_ray):
    said = cm_ray("sweep", "digits_ict", "--dry-run")
    assert "1,797 images of 8x8" in said.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_space_is_swept_by_its_name(cm_ray):
    changes = [word for path, value in TINY.items() for word in ("--set", f"{path}={value}")]
    options = ["--trials", 1, "--run-dir", "runs/swept", "--tracking-uri", "none", "--retries", 0]
    said = cm_ray("sweep", "digits_ict", *options, *changes)
    assert "1 trials: 1 finished" in said.stdout
    assert (cm_ray.folder / "runs" / "swept" / "report.md").is_file()


@pytest.mark.ray
def test_the_page_is_served(environment, cm_ray, trained):
    pytest.importorskip("gradio", reason="the page is an extra: pip install 'cm_ray[app]'")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [environment / "bin" / "cm-ray", "app", trained, "--port", port, "--device", "cpu"]
    log = cm_ray.folder / "page.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=cm_ray.folder,
            env=variables(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        assert answer(process, f"http://127.0.0.1:{port}/", log) == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0, log.read_text()
    finally:
        end(process.pid)


def answer(process, address, log):
    """Return the status that an address answers with, once it answers."""
    while True:
        assert process.poll() is None, log.read_text()
        refused = contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError)
        with refused, urllib.request.urlopen(address, timeout=60) as page:
            return page.status
        time.sleep(0.2)
