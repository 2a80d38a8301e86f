"""jobs/export.py writes what other commands and tools take; a model is named alike everywhere."""

import re
import runpy
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cm_ray.cluster.evaluation.evaluate_plan import evaluated_model
from cm_ray.cluster.time_points.find import _own_copy
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.errors import UserError
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.reading import load_model, network_digest
from cm_ray.networks.model import SPEC, ModelSpec, save_model
from cm_ray.networks.vision import torchvision
from cm_ray.recipes import RECIPES
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.storage.files import write_json
from cm_ray.training.starting_models import prepare_teachers, read_initial, read_teacher
from tests.networks.test_model import LABELLED, model
from tests.results import result, score

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(monkeypatch, capsys):
    """Run a job's command in this process."""

    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "jobs" / name), run_name="__main__")
        said = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=said.out, err=said.err)

    return run


@pytest.fixture
def run_directory(tmp_path):
    made = model(LABELLED)
    save_model(tmp_path / "run" / "model", LABELLED, made.network.state_dict())
    return tmp_path / "run"


def images(job, named, out):
    done = job("sample.py", named, "--samples", 5, "--out", out, "--nfe", 2)
    assert done.code == 0, done.err
    return np.load(out.with_suffix(".npz"))["arr_0"]


@pytest.mark.parametrize("kind", ["diffusers", "safetensors", "model"])
def test_an_export_is_sampled_as_the_run_is(kind, job, run_directory, tmp_path):
    done = job("export.py", run_directory, "--format", kind, "--out", tmp_path / "out", "--boundaries", 30)
    assert done.code == 0, done.err
    exported = done.out.splitlines()[0]
    if kind == "diffusers":
        assert "timesteps=[" in done.out
        assert "# 2 evaluations" in done.out
    ours = job("sample.py", run_directory, "--samples", 5, "--out", tmp_path / "a")
    theirs = job("sample.py", exported, "--samples", 5, "--out", tmp_path / "b")
    assert (ours.code, theirs.code) == (0, 0), theirs.err
    a, b = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in "ab")
    assert np.array_equal(a, b)
    again = job("export.py", exported, "--format", "model", "--out", tmp_path / "back")
    assert again.code == 0, again.err
    first, back = (load_model(place).state_dict() for place in (run_directory / "model", tmp_path / "back"))
    assert all(torch.equal(first[name], back[name]) for name in first)


def test_a_program_of_one_step(job, run_directory, tmp_path):
    done = job("export.py", run_directory, "--format", "torch", "--out", tmp_path / "m")
    assert done.code == 0, done.err
    program = torch.export.load(tmp_path / "m.pt2").module()
    assert program(torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("diffusers", "precious/model_index.json"),  # somebody's pipeline
        ("model", "precious/model.json"),
        ("safetensors", "precious.safetensors"),
        ("onnx", "precious.onnx"),
        ("torch", "precious.pt2/thesis.tex"),
    ],
)
def test_what_is_there_is_left_alone(kind, there, job, run_directory, tmp_path):
    precious = tmp_path / there
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("years of work")
    done = job("export.py", run_directory, "--format", kind, "--out", tmp_path / "precious")
    assert done.code == 2
    assert f"{tmp_path / Path(there).parts[0]} exists already; remove it" in done.err
    assert precious.read_text() == "years of work"


def test_an_empty_folder_is_free_and_a_killed_export_leaves_it_so(job, run_directory, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cm_ray.networks.formats.diffusers_pipeline.save_file", killed)
        assert job("export.py", run_directory, "--out", tmp_path / "out").code == 130
    assert job("export.py", run_directory, "--out", tmp_path / "out").code == 0
    assert job("export.py", run_directory, "--out", tmp_path / "out").code == 2


def test_what_names_no_model_is_said(job, tmp_path):
    done = job("export.py", tmp_path / "nowhere", "--out", tmp_path / "x")
    assert done.code == 2
    assert "nowhere is not a model; give a run directory, a model's folder, a file of weights" in done.err


NETWORK = {
    "network.channels": 64,
    "network.channel_mult": (1,),
    "network.blocks": 1,
    "network.attention_resolutions": (),
    "network.norm_groups": 32,
    "network.head_channels": 64,
    "network.conditional": False,
}


def published(tmp_path, recipe, kind):
    """A file as OpenAI's, or a directory of diffusers, of a small network of a recipe."""
    config = override(RECIPES[recipe](), NETWORK | {"column.sigma_data": 0.5})
    spec = ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=(3, 64, 64),
        class_names=placeholders(0),
    )
    file = tmp_path / f"{kind}_imagenet64_l2.pt"
    made = model(spec)
    torch.save({name: x.contiguous() for name, x in made.network.state_dict().items()}, file)
    return config, spec, made, file


def test_a_teacher_and_a_beginning_from_openais_file(tmp_path):
    config, spec, made, file = published(tmp_path, "cd_digits", "edm")
    config = override(config, {"teacher.model": str(file)})
    run = RunDirectory(tmp_path / "run")
    prepare_teachers(config, spec, run)
    teacher, initial = read_teacher(config, run), read_initial(config, run)
    assert teacher.spec.diffusion.boundary == "none"
    for name, weights in made.network.state_dict().items():
        assert torch.equal(teacher.network.state_dict()[name], weights)
        assert torch.equal(initial[name], weights)


def test_a_beginning_from_a_directory_of_diffusers(job, tmp_path):
    config, spec, made, file = published(tmp_path, "ict_digits", "ct")
    done = job("export.py", file, "--out", tmp_path / "pipeline")
    assert done.code == 0, done.err
    config = override(config, {"init_from.model": str(tmp_path / "pipeline")})
    run = RunDirectory(tmp_path / "run")
    prepare_teachers(config, spec, run)
    initial = read_initial(config, run)
    assert all(torch.equal(initial[name], x) for name, x in made.network.state_dict().items())


def test_settings_that_shapes_do_not_show_are_compared(tmp_path):
    config, spec, _, file = published(tmp_path, "ict_digits", "ct")
    config = override(config, {"init_from.model": str(file), "network.head_channels": 32})
    other = override(config.network, {"head_channels": 32})
    with pytest.raises(
        UserError,
        match=r"has the network's head_channels 64, and this run has 32; set network\.head_channels to 64",
    ):
        prepare_teachers(
            config,
            ModelSpec(network=other, diffusion=spec.diffusion, shape=spec.shape),
            RunDirectory(tmp_path / "run"),
        )
    assert not (tmp_path / "run").exists()


def test_a_file_is_a_source_of_evaluations_and_searches(tmp_path):
    _, _, made, file = published(tmp_path, "ict_digits", "ct")
    source = evaluated_model(Evaluation(source=str(file)), "")
    assert source.spec.shape == (3, 64, 64)
    run = RunDirectory(tmp_path / "search")
    folder = _own_copy(file, run)
    assert folder == run.model
    assert _own_copy(folder, run) == folder
    before = network_digest(folder)
    assert load_model(folder).spec == source.spec
    assert _own_copy(file, run) == folder, "it goes on with the copy"
    assert network_digest(folder) == before
    assert (folder / SPEC).is_file()
    assert all(
        torch.equal(a, b)
        for a, b in zip(load_model(folder).state_dict().values(), made.state_dict().values(), strict=True)
    )


def front_matter(text):
    """Return the metadata of a model card, as model hubs read it, and the text below."""
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.mark.parametrize(("kind", "library"), [("diffusers", "diffusers"), ("model", "cm_ray")])
def test_an_exported_folder_has_a_card_for_model_hubs(kind, library, job, run_directory, tmp_path):
    run = RunDirectory(run_directory)
    run.claim(override(RECIPES["ict_digits"](), {"name": "cats: and #dogs"}))
    write_json(run.lineage_file, {"data.source": "/data/pets", "data.fingerprint": "ab" * 32})
    run.samples.mkdir()
    Image.new("L", (8, 8), 77).save(run.samples / "final.png")
    paths = {"model": "model", "samples": ["samples/final.png"]}
    write_json(
        run.result_file, result(score(0.5).to_row(), name="cats: and #dogs", paths=paths, clipped_noise=10.0)
    )
    done = job("export.py", run_directory, "--format", kind, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    metadata, body = front_matter((tmp_path / "out" / "README.md").read_text())
    assert metadata["library_name"] == library
    assert metadata["pipeline_tag"] == "unconditional-image-generation"
    assert "consistency-model" in metadata["tags"]
    (index,) = metadata["model-index"]
    assert index["name"] == "cats: and #dogs"
    (metric,) = index["results"][0]["metrics"]
    assert (metric["type"], metric["value"]) == ("FD-digits-1797", 0.5)
    assert "| FD-digits-1797 | `one-step` | 1 | 0.5 | 5.0% |" in body
    assert "![Samples](samples.png)" in body
    assert Image.open(tmp_path / "out" / "samples.png").getpixel((0, 0)) == 77
    assert "license" not in metadata


def test_the_use_that_a_card_of_diffusers_tells_works(job, run_directory, tmp_path, monkeypatch):
    torchvision()
    warnings.simplefilter("ignore")
    assert job("export.py", run_directory, "--out", tmp_path / "out").code == 0
    _, body = front_matter((tmp_path / "out" / "README.md").read_text())
    assert "No scores of it are known here." in body
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("path/of/this/folder", "out"), {})
    assert Image.open(tmp_path / "sample.png").size == (8, 8)
