"""What is readable of a run and a model has limits: sizes that cannot be are refused, not allocated."""

import json
import shutil

import pytest
from PIL import Image

import cm_ray as cm
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model, network_digest, read_spec
from cm_ray.networks.model import SPEC
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.resources import Resources
from cm_ray.tracking.sent_state import SentState
from tests.cluster.tiny import save_tiny
from tests.fuzz.running import limited_memory


@pytest.fixture
def model(tmp_path):
    return save_tiny(tmp_path / "model")


def changed(model, path, value):
    values = json.loads((model / SPEC).read_text())
    *places, last = path.split(".")
    inner = values
    for place in places:
        inner = inner[place]
    inner[last] = value
    (model / SPEC).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("shape", [True, 8, 8]),
        ("shape", [1, 8]),
        ("shape", [1, 8, -8]),
        ("shape", [1, 8, 10**30]),
        ("shape", [1, 10**6, 10**6]),
        ("network.channels", True),
        ("network.channels", -8),
        ("network.channels", 0),
        ("network.channels", 10**12),
        ("network.channels", 10**400),
        ("network.blocks", 10**9),
        ("network.channel_mult", [1] * 10**5),
        ("network.channel_mult", [10**8, 10**8]),
        ("network.channel_mult", [-1, 2]),
        ("network.head_channels", -8),
        ("network.norm_groups", 0),
        ("network.attention_resolutions", [True]),
        ("class_names", ["a", 1]),
        ("class_names", "abc"),
        ("class_counts", [True] * 10),
        ("class_counts", [1.5] * 10),
        ("class_counts", [-1] * 10),
        ("time_points", [[True]]),
        ("time_points", [[0.5, 0.6]]),
        ("time_points", 5),
        ("sampler", "heun:100000000"),
        ("sampler", 3),
        ("ema_length", "0.1"),
        ("ema_length", -1.0),
        ("initial_share", 2.0),
        ("reading", {"bits": 10**9}),
        ("reading", []),
        ("news", 1),
        ("network.news", 1),
        ("network", {"kind": "adm", "channels": [8]}),
    ],
)
def test_claims_of_a_model_that_cannot_be(path, value, model):
    changed(model, path, value)
    with limited_memory(), pytest.raises(UserError) as error:
        load_model(model)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert str(model) in str(error.value)


@pytest.mark.parametrize("text", ["[]", "null", '"a"', "1"])
def test_a_specification_that_is_none(text, model):
    (model / SPEC).write_text(text)
    for read in (read_spec, network_digest):
        with pytest.raises(UserError, match=r"model\.json is not"):
            read(model)


def test_the_model_itself_is_read(model):
    assert read_spec(model).shape == (1, 8, 8)


RECORDS = {
    "result.json": RunDirectory.result,
    "lineage.json": RunDirectory.lineage,
    "metrics.jsonl": RunDirectory.read_metrics,
    "config.json": RunDirectory.config,
    "resources.json": lambda run: Resources.load(run.root),
    "tracking.json": lambda run: SentState.load(run.tracking_file),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_are_none(name, tmp_path):
    run = RunDirectory(tmp_path)
    for text in ("[]", '"text"', "3", '{"a": 1}', "null", '{"step": true}', '{"threads": 1e999}', "[[[["):
        (tmp_path / name).write_text(text)
        if name == "metrics.jsonl" and text in ("[[[[", '{"threads": 1e999}'):
            continue
        with pytest.raises(UserError) as error:
            RECORDS[name](run)
        assert "\n" not in str(error.value)


def test_resources_that_no_machine_has(tmp_path):
    for changes in ({"threads": 10**9}, {"threads": -1}, {"workers": 0}, {"workers": True}):
        values = {"device": "cpu", "workers": 1, "threads": 1} | changes
        (tmp_path / "resources.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match="restore it"):
            Resources.load(tmp_path)


def test_pictures_are_those_of_the_run(averaged_run, tmp_path):
    run = shutil.copytree(averaged_run.root, tmp_path / "copy")
    pictures = cm.load(run).pictures
    assert [picture.format for picture in pictures] == ["PNG"]
    assert pictures[0].filename.startswith(str(run)), "a copied run has its own"
    result = json.loads((run / "result.json").read_text())
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    Image.new("L", (4, 4)).save(run / "samples" / "other.png", "GIF")
    others = {
        str(tmp_path / "secret.png"): "outside of it",
        "../secret.png": "outside of it",
        "samples/other.png": "is not a grid of samples",
        "samples/none.png": "is not a grid of samples",
    }
    for name, said in others.items():
        result["paths"]["samples"] = [name]
        (run / "result.json").write_text(json.dumps(result))
        with pytest.raises(UserError, match=said):
            cm.load(run).pictures  # noqa: B018
