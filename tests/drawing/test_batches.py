"""The number of images at once follows from the memory unless it is given, and the samples do not."""

import numpy as np
import pytest
import torch

import cm_ray as cm
from cm_ray.cluster.pool import sizing
from cm_ray.cluster.pool.sizing import Actors, batch_for
from cm_ray.command_line import main
from cm_ray.drawing import batches
from cm_ray.drawing.batches import MOST, SHARE, batch_on, fitting_batch, free_memory
from cm_ray.networks.architectures import ADM
from cm_ray.networks.custom import Custom
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.sampling_memory import sampling_bytes
from cm_ray.runs.resources import Resources

SPEC = ModelSpec(
    network=ADM(channels=32, channel_mult=(1, 2), blocks=1, head_channels=32),
    diffusion=cm.Diffusion(),
    shape=(3, 32, 32),
)
CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 8, 128])
def test_as_many_as_fit_into_half_of_the_memory(rows, precision):
    needed = sampling_bytes(SPEC, rows, precision) / SHARE
    assert fitting_batch(SPEC, precision, "cpu", 1.01 * needed) == rows
    if rows > 1:
        assert fitting_batch(SPEC, precision, "cpu", 0.97 * needed) == rows // 2
    assert fitting_batch(SPEC, precision, "cpu", 1e15) == MOST
    assert fitting_batch(SPEC, precision, "cpu", 0) == 1, "what does not fit says so where it is computed"


def test_shorter_arithmetic_lets_more_fit():
    half, whole = (sampling_bytes(SPEC, 8, precision) for precision in ("bfloat16", "float32"))
    assert half < 0.8 * whole
    assert sampling_bytes(SPEC, 8, "tf32") == whole


def test_what_is_given_is_taken(monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda device: 0)
    assert batch_on(CPU, 77, SPEC) == 77
    assert batch_on(CPU, 0, SPEC) == 1
    own = ModelSpec(network=Custom(path="a.module:Class"), diffusion=cm.Diffusion(), shape=(3, 32, 32))
    assert batch_on(CPU, 0, own) == MOST, "it cannot be counted"


def test_the_limit_of_a_container_is_kept(monkeypatch, tmp_path):
    machine = free_memory()
    assert 2**20 < machine < 2**50
    monkeypatch.setattr(batches, "_CONTROL_GROUP", tmp_path)
    files = {
        "memory.max": f"{2**27}",
        "memory.current": f"{2**26}",
        "memory.stat": "anon 5\ninactive_file 4096",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert free_memory() == 2**26 + 4096
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 2**27


def test_samples_do_not_depend_on_it(averaged_run, monkeypatch, tmp_path, capsys):
    """To rounding: a level of 255 at most."""
    made = []
    needed = sampling_bytes(cm.load(averaged_run.root).spec, 4, "float32") / SHARE
    for folder, free in (("whole", 1e12), ("small", 1.01 * needed)):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        words = ["sample", averaged_run.root, "--samples", 12, "--out", tmp_path / folder]
        assert main.run([*map(str, words)]) == 0
        with np.load(tmp_path / f"{folder}.npz") as file:
            made.append(file[file.files[0]].astype(int))
    said = capsys.readouterr()
    assert "4 images at a time (--batch-size)" in said.err + said.out
    assert abs(made[0] - made[1]).max() <= 1
    assert made[0].std() > 1


def test_a_pool_goes_on_with_the_number_that_it_began_with(monkeypatch, tmp_path, capsys):
    """Its finished requests are kept by it."""
    needed, actors = sampling_bytes(SPEC, 8, "float32") / SHARE, Actors(count=2, cpus=1)
    monkeypatch.setattr(sizing, "node_resources", lambda: [{"CPU": 2.0, "memory": 2 * 1.01 * needed}])
    assert batch_for(0, "float32", SPEC, actors, tmp_path) == 8, "each actor has half of its node's memory"
    assert "8 images at a time fit into the memory of an actor (batch_size)" in capsys.readouterr().err
    assert Resources.load(tmp_path) == Resources(device="cpu", batch=8)
    monkeypatch.setattr(sizing, "node_resources", lambda: [{"CPU": 2.0, "memory": 1e12}])
    assert batch_for(0, "float32", SPEC, actors, tmp_path) == 8
    assert batch_for(5, "float32", SPEC, actors, tmp_path) == 5
    assert batch_for(0, "float32", SPEC, actors, tmp_path / "new") == MOST
    nodes = [{"CPU": 1.0, "memory": 1e12}, {"CPU": 1.0, "memory": 1.01 * needed}, {"CPU": 0.0, "memory": 1.0}]
    monkeypatch.setattr(sizing, "node_resources", lambda: nodes)
    assert batch_for(0, "float32", SPEC, actors, tmp_path / "other") == 8, "the smallest node decides"
