"""Folders that a node does not share are named with the node before anything is trained, made or edited."""

import numpy as np
import pytest
from PIL import Image

from cm_ray import recipes
from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.cluster.data.stream import load_images
from cm_ray.cluster.editing.edit_files import edit
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.sweeps.run_sweep import sweep
from cm_ray.cluster.training.run import train
from cm_ray.command_line.settings.edit import Editing
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest
from cm_ray.errors import UserError
from cm_ray.remote.witness import Witness, witnessed
from cm_ray.settings.tree import override
from cm_ray.storage.files import remove
from cm_ray.sweeps.options import Sweep
from tests.api.conftest import TINY
from tests.cluster.hosts import host, needs_namespaces, occupied
from tests.cluster.tiny import save_tiny
from tests.cluster.tiny_spaces import GRID, write_space


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("cm_ray.remote.witness._PATIENCE_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_witness_knows_its_folder_by_name_and_content(tmp_path):
    with witnessed(tmp_path) as seen:
        seen.check()
        assert [seen.file] == list(tmp_path.iterdir())
        seen.file.write_text("a token of another command")
        with pytest.raises(UserError, match=f"{tmp_path} on node .* is not the folder that the command uses"):
            seen.check()
        remove(seen.file)
        with pytest.raises(UserError, match="choose a folder on storage that all nodes share"):
            seen.check()
    assert not list(tmp_path.iterdir())
    (tmp_path / ".seen-of-a-killed-process").touch()
    with witnessed(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1, "what a killed process left is removed"


def test_network_storage_may_take_a_moment(tmp_path):
    import threading

    (tmp_path / "a").write_text("x")
    seen = Witness.of(tmp_path / "a")
    remove(tmp_path / "a")
    threading.Timer(0.5, (tmp_path / "a").write_text, ["x"]).start()
    seen.check()


@pytest.fixture(scope="module")
def other_view(ray_cluster, tmp_path_factory):
    """A folder that another node sees empty; the node of this process has no free CPU."""
    needs_namespaces()
    folder = tmp_path_factory.mktemp("not-shared")
    with host(ray_cluster, hidden=folder, CPU=2), occupied(ray_cluster, 2):
        yield folder


@pytest.fixture
def images(tmp_path):
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def training(folder, images):
    changes = {**TINY, "steps": 2, "run_dir": str(folder / "run"), "network.conditional": False}
    train(override(recipes.ict_digits(), {**changes, "data.path": str(images)}))


def swept(folder, images):
    space = write_space(images, GRID)
    sweep(Sweep(space=str(space), run_dir=str(folder / "swept"), tracking_uri="none", concurrent=1), {})


def shards(folder, images):
    make_shards(open_source(str(images)), folder / "shards")


def edits(folder, images):
    place = folder / "images"
    place.mkdir()
    Image.new("L", (8, 8)).save(place / "a.png")
    model = save_tiny(folder / "model")
    edit(Editing(task="upscale", model=str(model), image=str(place), out=folder / "edits"))


@pytest.mark.ray
@pytest.mark.parametrize(
    "job",
    [shards, pytest.param(edits, marks=pytest.mark.slow), training, swept],
    ids=lambda job: job.__name__,
)
def test_a_job_on_a_node_with_another_view_ends_at_once(job, other_view, images):
    with pytest.raises(UserError, match=f"{other_view}.* on node .* is not the folder that the command uses"):
        job(other_view, images)


@pytest.mark.ray
def test_readers_of_shards_look_as_well(ray_cluster, other_view, images):
    folder = images / "shards"
    make_shards(open_source(str(images)), folder)
    moved = other_view / "moved"
    folder.rename(moved)
    with pytest.raises(Exception, match="is not the folder that the command uses"):
        load_images(moved, Manifest.load(moved))
    pool_of_readers = SamplerPool(None, Actors(count=1, cpus=0.5))
    with pool_of_readers as pool, pytest.raises(UserError, match="is not the folder that the command uses"):
        pool.read(moved, Manifest.load(moved), frozenset(["images"]))
