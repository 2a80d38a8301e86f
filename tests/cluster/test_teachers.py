"""A run finds teachers and initial weights by every name, copies them once, or refuses in a sentence."""

import contextlib
import dataclasses
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from cm_ray import recipes
from cm_ray.core.precondition import VE, VP
from cm_ray.core.times import NoiseLevels
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import Heun, OneStep
from cm_ray.settings.tree import override
from cm_ray.training.starting_models import prepare_teachers, read_initial, read_teacher

TINY = {
    "network.channels": 8,
    "network.channel_mult": (1,),
    "network.blocks": 1,
    "network.attention_resolutions": (),
    "network.head_channels": 8,
    "network.norm_groups": 4,
}
NAMES = tuple("0123456789")


def config(**changes):
    return override(recipes.cd_digits(), TINY | {k.replace("__", "."): v for k, v in changes.items()})


def spec_of(settings, **changes):
    spec = ModelSpec(
        network=settings.network, diffusion=settings.diffusion, shape=(1, 8, 8), class_names=NAMES
    )
    return dataclasses.replace(spec, **changes)


def denoiser(settings, **changes):
    diffusion = dataclasses.replace(settings.diffusion, boundary="none", **changes)
    torch.manual_seed(1)
    return Model(spec_of(settings, diffusion=diffusion, sampler=Heun(steps=18)))


def saved(folder, model):
    save_model(folder, model.spec, model.network.state_dict())
    return str(folder)


def prepare(settings, folder):
    run = RunDirectory(folder)
    prepare_teachers(settings, spec_of(settings), run)
    return run


def save_weights(model, file):
    """Write a file of weights as people keep them: a state dict."""
    weights = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    (save_file if file.suffix == ".safetensors" else torch.save)(weights, file)
    return str(file)


def same(model, weights):
    return all(torch.equal(weights[name], value) for name, value in model.network.state_dict().items())


@pytest.mark.parametrize("kind", ["folder", "run", "safetensors", "pt"])
def test_a_teacher_by_every_name(kind, tmp_path):
    model = denoiser(config())
    name = tmp_path / "there"
    if kind in ("folder", "run"):
        saved(name / "model" if kind == "run" else name, model)
    else:
        name = save_weights(model, name.with_suffix("." + kind))
    settings = config(teacher__model=str(name))
    run = prepare(settings, tmp_path / "run")
    teacher = read_teacher(settings, run)
    assert same(model, teacher.network.state_dict())
    assert teacher.spec.diffusion.boundary == "none"
    assert same(model, read_initial(settings, run)), "the student starts from its teacher"


def test_a_file_of_weights_has_the_column_that_is_said(tmp_path):
    settings = config(
        teacher__column="vp", init_from__model="", teacher__model=str(tmp_path / "vp.safetensors")
    )
    save_weights(denoiser(settings), tmp_path / "vp.safetensors")
    run = prepare(settings, tmp_path / "run")
    assert read_teacher(settings, run).spec.diffusion.column == VP()
    assert read_initial(settings, run) is None


def test_a_run_keeps_the_teacher_that_it_began_with(tmp_path):
    first = denoiser(config())
    settings = config(teacher__model=saved(tmp_path / "t", first))
    run = prepare(settings, tmp_path / "run")
    run.claim(settings)
    shutil.rmtree(tmp_path / "t")
    run = prepare(settings, tmp_path / "run")
    assert same(first, read_teacher(settings, run).network.state_dict())


def test_what_is_in_the_way_of_a_copy_is_left_alone(tmp_path):
    precious = tmp_path / "run" / "teacher" / "checkpoints"
    precious.mkdir(parents=True)
    saved(tmp_path / "run" / "teacher" / "model", denoiser(config()))
    with pytest.raises(UserError, match=r"exists, where .* is to be copied"):
        prepare(config(teacher__model=str(tmp_path / "run" / "teacher")), tmp_path / "run")
    assert precious.is_dir()


def test_a_run_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("CM_RAY_RUNS", str(tmp_path / "runs"))
    model = denoiser(config())
    saved(tmp_path / "runs" / "edm_digits" / "model", model)
    settings = config(teacher__model="edm_digits")
    assert same(model, read_teacher(settings, prepare(settings, tmp_path / "run")).network.state_dict())


def test_a_refused_command_leaves_no_teacher_to_the_next(tmp_path):
    wrong = config(teacher__model=saved(tmp_path / "w", denoiser(config(network__conditional=False))))
    with pytest.raises(UserError, match="has 0 classes, and this run has 10"):
        prepare(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()
    right = denoiser(config())
    settings = config(teacher__model=saved(tmp_path / "r", right))
    assert same(right, read_teacher(settings, prepare(settings, tmp_path / "run")).network.state_dict())


def test_initial_weights_from_another_model(tmp_path):
    model = denoiser(config())
    settings = override(
        recipes.ict_digits(),
        TINY | {"init_from.model": saved(tmp_path / "m", model), "column.sigma_data": 0.75},
    )
    run = prepare(settings, tmp_path / "run")
    assert same(model, read_initial(settings, run))
    assert read_teacher(settings, run) is None


def consistency(settings, folder):
    return saved(folder, Model(spec_of(settings)))


def other_images(settings, folder):
    spec = dataclasses.replace(denoiser(settings).spec, shape=(3, 8, 8))
    return saved(folder, Model(spec))


def other_column(settings, folder):
    return saved(folder, denoiser(settings, column=VE()))


def other_network(settings, folder):
    spec = denoiser(settings).spec
    return saved(
        folder,
        Model(dataclasses.replace(spec, network=dataclasses.replace(spec.network, channels=16))),
    )


def code(settings, folder):
    class Harmful:
        def __reduce__(self):
            return (exit, (3,))

    file = folder.with_suffix(".pt")
    file.write_bytes(pickle.dumps(Harmful(), protocol=2))
    return str(file)


def cut_short(settings, folder):
    file = folder.with_suffix(".safetensors")
    save_weights(denoiser(settings), file)
    file.write_bytes(file.read_bytes()[:500])
    return str(file)


def empty(settings, folder):
    file = folder.with_suffix(".pt")
    file.touch()
    return str(file)


def text(settings, folder):
    file = folder.with_suffix(".pt")
    file.write_text("hello")
    return str(file)


def piecewise(settings, folder):
    model = denoiser(settings)
    diffusion = dataclasses.replace(model.spec.diffusion, boundary="piecewise")
    spec = dataclasses.replace(model.spec, diffusion=diffusion, sampler=OneStep())
    return saved(folder, Model(spec))


def not_tensors(settings, folder):
    file = folder.with_suffix(".pt")
    torch.save({"step": 5}, file)
    return str(file)


def missing_keys(settings, folder):
    file = folder.with_suffix(".pt")
    weights = denoiser(settings).network.state_dict()
    weights.popitem()
    torch.save(weights, file)
    return str(file)


def second_stage(**changes):
    return override(recipes.tcm_digits(), TINY | changes)


@pytest.mark.parametrize("kind", ["folder", "safetensors"])
def test_a_first_stage_is_a_consistency_model(kind, tmp_path):
    settings = second_stage()
    torch.manual_seed(1)
    model = Model(spec_of(settings))
    name = tmp_path / "there"
    if kind == "folder":
        saved(name, model)
    else:
        name = save_weights(model, name.with_suffix(".safetensors"))
    settings = second_stage(**{"teacher.model": str(name)})
    run = prepare(settings, tmp_path / "run")
    first = read_teacher(settings, run)
    assert same(model, first.network.state_dict())
    assert first.spec.diffusion.boundary == "skip"
    assert first.spec.sampler == OneStep()
    assert same(model, read_initial(settings, run)), "the student starts from the first stage"


@pytest.mark.parametrize(
    ("levels", "fits"),
    [({"t_max": 81.0}, False), ({"t_min": 0.001}, False), ({"t_max": 10.0, "t_min": 0.01}, True), ({}, True)],
)
def test_a_teacher_is_asked_at_noise_levels_that_it_knows(levels, fits, tmp_path):
    teacher = saved(tmp_path / "t", denoiser(config()))
    settings = override(config(), {"teacher.model": teacher, "noise": NoiseLevels(**levels)})
    message = "knows noise levels from 0.002 to 80, and this run has those from"
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match=message):
        prepare(settings, tmp_path / "run")
    assert (tmp_path / "run").is_dir() == fits


def test_a_diffusion_model_is_no_first_stage(tmp_path):
    settings = second_stage(**{"teacher.model": saved(tmp_path / "there", denoiser(second_stage()))})
    with pytest.raises(UserError, match="is a diffusion model; give a consistency model"):
        prepare(settings, tmp_path / "run")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda settings, folder: str(folder), "is not a model; give a run directory, a model's folder"),
        (consistency, "is a consistency model; give a diffusion model"),
        (other_images, "are RGB, and those of the data are grey; set data.channels to 3"),
        (other_column, "was trained with another column: column \\(ve there, edm here\\)"),
        (other_network, "init_from.model teacher belongs to another network"),
        (code, "is a Python pickle"),
        (cut_short, "is cut off"),
        (empty, "is empty"),
        (text, "is a text that begins with"),
        (not_tensors, "holds no tensors"),
        (missing_keys, "belongs to another network: it lacks"),
    ],
)
def test_what_cannot_be_a_teacher_is_said(make, sentence, tmp_path):
    settings = config()
    settings = override(settings, {"teacher.model": make(settings, tmp_path / "there")})
    with pytest.raises(UserError, match=sentence):
        prepare(settings, tmp_path / "run")


def test_a_piecewise_network_is_no_start_for_another(tmp_path):
    folder = piecewise(config(), tmp_path / "there")
    settings = override(recipes.ict_digits(), TINY | {"init_from.model": folder})
    with pytest.raises(UserError, match=r"has boundary piecewise, and this run has skip"):
        prepare(settings, tmp_path / "run")
