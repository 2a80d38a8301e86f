"""Training with EDM's augmentation: every network of a step is told of it, and samples are not augmented."""

import dataclasses

import pytest
import torch

from cm_ray import recipes
from cm_ray.core.augmentation import EDMAugmentation, Flip, NoAugmentation
from cm_ray.core.methods import ModelSource
from cm_ray.errors import SettingError, UserError
from cm_ray.networks.architectures import ADM, DDPMpp, NCSNpp
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, save_model
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.training.data_parallel import settle_buckets
from cm_ray.training.drawing import draw_step
from cm_ray.training.starting_models import check_teachers
from cm_ray.training.students import build_student
from tests.training.engines import IMAGES, batches, engine, run, shaken, small, specification, weights

SIZES = {"channels": 8, "channel_mult": (1, 2), "blocks": 1, "norm_groups": 4, "attention_resolutions": (4,)}
NETWORKS = {"adm": ADM(**SIZES, head_channels=8), "ddpm++": DDPMpp(**SIZES), "ncsn++": NCSNpp(**SIZES)}


def specs(name="adm"):
    """Return the specifications of a network that knows no augmentation, and of one that does."""
    plain = dataclasses.replace(specification(small("edm")), network=NETWORKS[name])
    return plain, dataclasses.replace(plain, augment=9)


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([0.1, 2.0, 60.0])


def moved(model):
    """Return a model none of whose weights is zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def test_a_step_draws_images_and_tells_what_they_are():
    config, positions = small("edm", "augmented"), torch.arange(8)
    draw = draw_step(config, 2, IMAGES[:8], positions)
    x, told = config.augmentation(IMAGES[:8].float() / 127.5 - 1, config.seed, 2, positions)
    assert torch.equal(draw.x, x)
    assert torch.equal(draw.augment, told)
    assert told.any()
    assert torch.equal(draw_step(config, 2, IMAGES[4:8], positions[4:]).augment, told[4:])
    assert draw_step(small("edm"), 2, IMAGES[:8], positions).augment is None


@pytest.mark.parametrize("name", NETWORKS)
def test_other_weights_of_a_seed_are_the_same_and_those_of_the_family(name):
    before, after = (build_student(spec, 5).network.state_dict() for spec in specs(name))
    assert all(torch.equal(after[each], value) for each, value in before.items())
    assert {*after} - {*before} == {"augment_embed.weight"}
    new = after["augment_embed.weight"]
    assert new.shape == (16 if name == "ncsn++" else 8, 9)
    bound = (6 / sum(new.shape)) ** 0.5
    assert new.abs().max() == 0 if name == "adm" else bound / 2 < new.abs().max() <= bound


@pytest.mark.parametrize("name", NETWORKS)
def test_zeros_have_no_effect_and_other_numbers_have(name):
    plain, knowing = specs(name)
    (x, t), model = inputs(), moved(Model(knowing))
    with torch.no_grad():
        without = model(x, t)
        assert torch.equal(model(x, t, augment=torch.zeros(3, 9)), without)
        assert not torch.allclose(model(x, t, augment=torch.ones(3, 9)), without)
        bare = build_student(plain, 0, model.network.state_dict()).eval()
        assert torch.equal(bare(x, t), without), "a student without augmentation is what samples are of"
        back = build_student(knowing, 0, bare.network.state_dict()).eval()
        assert torch.equal(back(x, t), without)
        told = torch.ones(3, 9)
        kept = build_student(knowing, 0, model.network.state_dict()).eval()
        assert torch.equal(kept(x, t, augment=told), model(x, t, augment=told))
    with pytest.raises(ValueError, match="does not know augmentations"):
        bare(x, t, augment=torch.zeros(3, 9))


@pytest.mark.parametrize("method", ["edm", "cd", "pd", "meanflow", "ict"])
def test_student_target_and_teacher_are_told_the_same(method, monkeypatch):
    config = small(method, "augmented")
    made = shaken(engine(config))
    told = {}

    def watch(model, name):
        plain = model.forward

        def forward(x_t, t, labels=None, s=None, scale=None, augment=None):
            told.setdefault(name, []).append(augment)
            return plain(x_t, t, labels, s, scale, augment)

        monkeypatch.setattr(model, "forward", forward)

    watch(made.student, "student")
    for name in ("target", "teacher"):
        if (model := getattr(made, name)) is not None:
            watch(model, name)
    made.one_step(next(batches(made)))
    assert told["student"]
    assert method not in ("cd", "pd") or told["teacher"]
    expected = draw_step(config, 0, IMAGES[:8], torch.arange(8)).augment
    assert all(torch.equal(each, expected) for them in told.values() for each in them)


def test_training_goes_on_to_the_bit_and_learns_the_map_of_the_numbers():
    config = small("edm", "augmented")
    whole = engine(config)
    before = whole.student.network.augment_embed.weight.detach().clone()
    run(whole)
    assert not torch.equal(whole.student.network.augment_embed.weight, before)
    half = engine(config)
    run(half, 3)
    resumed = engine(config)
    resumed.restore(half.checkpoint())
    run(resumed)
    assert torch.equal(weights(whole), weights(resumed))
    assert not torch.equal(weights(engine(small("edm"))), weights(whole))


def test_data_parallel_students_settle_with_numbers_of_every_weight():
    made = engine(small("edm", "augmented"))
    reached = set()
    for name, parameter in made.student.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: reached.add(name))
    settle_buckets(made.student, made.spec, 2, torch.device("cpu"))
    assert reached == {name for name, _ in made.student.named_parameters()}


@pytest.mark.parametrize("how", ["folder", "safetensors", "diffusers"])
def test_models_go_to_files_and_samples_are_the_same(how, tmp_path):
    spec = dataclasses.replace(specification(small("ict", "augmented")), network=NETWORKS["adm"])
    model, (x, t) = moved(Model(spec)), inputs()
    if how == "folder":
        save_model(tmp_path / "model", model.spec, model.network.state_dict())
        path = tmp_path / "model"
    else:
        path = export_model(model, how, tmp_path / "model")
    back = load_model(path)
    assert back.spec.augment == (0 if how == "diffusers" else 9)
    with torch.no_grad():
        assert torch.equal(back(x, t), model(x, t))


def test_a_teacher_that_knows_no_augmentation_is_refused(tmp_path):
    plain, knowing = specs()
    config = override(small("cd", "augmented"), {"network": plain.network})
    for spec, name in ((plain, "plain"), (knowing, "knowing")):
        save_model(tmp_path / name, spec, moved(Model(spec)).network.state_dict())
    spec = dataclasses.replace(knowing, diffusion=config.diffusion)
    run_dir = RunDirectory(tmp_path / "run")

    def of(teacher, augmentation):
        source = ModelSource(model=str(tmp_path / teacher))
        method = dataclasses.replace(config.method, teacher=source)
        return dataclasses.replace(config, method=method, augmentation=augmentation)

    with pytest.raises(UserError, match="was not trained with this augmentation"):
        check_teachers(of("plain", EDMAugmentation()), spec, run_dir)
    assert check_teachers(of("knowing", EDMAugmentation()), spec, run_dir)[0].spec.augment == 9
    unknowing = dataclasses.replace(spec, augment=0)
    assert check_teachers(of("knowing", Flip()), unknowing, run_dir)[0].spec.augment == 9


def test_networks_that_are_not_told_are_refused():
    with pytest.raises(SettingError, match="needs a network that takes its parameters"):
        dataclasses.replace(recipes.ncsnv2_cifar10(), augmentation=EDMAugmentation())


def test_published_recipes_have_their_augmentation():
    assert recipes.edm_cifar10().augmentation == EDMAugmentation(probability=0.12)
    assert recipes.meanflow_cifar10().augmentation.values == 6
    for recipe in (recipes.ct_cifar10, recipes.ve_cifar10, recipes.trigflow_cifar10, recipes.ct_imagenet64):
        assert recipe().augmentation == Flip()
    assert recipes.ict_digits().augmentation == NoAugmentation()
