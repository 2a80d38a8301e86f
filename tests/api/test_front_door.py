"""The front door: training in a line or as a loop, loading, sampling, editing, scoring."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cm_ray as cm
from tests.api.conftest import TINY

SMALL = {name: value for name, value in TINY.items() if name != "network.head_channels"}


class Tiny(nn.Module):
    """A network of one's own: two convolutions and the time."""

    def __init__(self, shape=(1, 8, 8), classes=0):
        super().__init__()
        self.first = nn.Conv2d(shape[0] + 1, 8, 3, padding=1)
        self.last = nn.Conv2d(8, shape[0], 3, padding=1)

    def forward(self, x, time, labels=None):
        t = time[:, None, None, None].expand(-1, 1, *x.shape[2:]) / 1000
        return self.last(torch.relu(self.first(torch.cat([x, t], 1))))


def test_every_public_name_is_there_and_documented():
    for name in cm.__all__:
        assert getattr(cm, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        cm.trian  # noqa: B018


def test_importing_cm_ray_imports_no_large_package():
    code = (
        "import sys, cm_ray; print([m for m in ('torch', 'ray', 'mlflow', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_has_its_model_scores_pictures_and_log(run):
    assert [score.name for score in run.scores] == ["FD-digits-100"] * 2
    assert [score.key["sampler"] for score in run.scores] == ["one-step", "multistep@2.0"]
    assert len(run.pictures) == 2
    assert [row["step"] for row in run.log if "loss" in row] == [1, 2, 3, 4]
    assert run.recipe.steps == 4
    assert run.model.sample(2, seed=0).shape == (2, 8, 8, 1)
    assert cm.load(run.directory.root).scores == run.scores


def test_the_same_call_goes_on_and_repeats_nothing(run):
    again = cm.train("ict_digits", out=run.directory.root, steps=4, changes=TINY, quiet=True)
    assert again.log == run.log
    with pytest.raises(cm.UserError, match="distance"):
        cm.train(
            "ict_digits", out=run.directory.root, steps=4, changes={**TINY, "distance": "l2"}, quiet=True
        )


def test_samples_are_the_same_in_any_number_and_take_a_class_by_name(shaken):
    run = shaken
    a, b = run.sample(5, seed=3), run.sample(2, seed=3, first=3, batch_size=1)
    assert np.abs(a[3:5].astype(int) - b.astype(int)).max() <= 1
    named, numbered = run.sample(4, label="7", seed=0), run.sample(4, label=7, seed=0)
    assert np.array_equal(named, numbered)
    assert named.labels.tolist() == [7] * 4
    assert not np.array_equal(named, run.sample(4, label="3", seed=0))
    with pytest.raises(cm.UserError, match=r"no class '77': did you mean"):
        run.sample(1, label="77")
    assert run.sample(1, steps=2, seed=0).shape == (1, 8, 8, 1)


def test_samples_show_themselves_and_save_themselves(run, tmp_path):
    x = run.sample(4, seed=0)
    assert x.dtype == np.uint8
    assert x._repr_png_().startswith(b"\x89PNG")
    assert x[0]._repr_png_().startswith(b"\x89PNG")
    assert (x.astype(float) / 255)._repr_png_() is None
    assert [image.size for image in x.pil()] == [(8, 8)] * 4
    assert np.array_equal(np.asarray(x.pil()[1]), x[1, :, :, 0])
    assert Image.open(x.save(tmp_path / "x.png")).width > 16
    saved = np.load(x.save(tmp_path / "x.npz"))
    assert np.array_equal(saved["arr_0"], x)
    assert np.array_equal(saved["arr_1"], x.labels)
    with pytest.raises(cm.UserError, match="must end in"):
        x.save(tmp_path / "x.txt")


def test_edits_keep_what_is_known(shaken, digits):
    run = shaken
    images, _ = digits
    mask = np.zeros((8, 8), bool)
    mask[:, :4] = True
    result = run.inpaint(images[:3], mask, label=3, steps=3)
    assert result.shape == (3, 8, 8, 1)
    assert np.abs(result[:, :, :4].astype(int) - images[:3, :, :4]).max() <= 1
    assert not np.array_equal(result[:, :, 4:], images[:3, :, 4:])
    assert run.upscale(Image.fromarray(images[0][..., 0]), label=0, steps=3).shape == (1, 8, 8, 1)
    between = run.interpolate(5, seeds=(0, 1), label=2)
    assert np.array_equal(between[0], run.sample(1, seed=0, label=2)[0])
    with pytest.raises(cm.UserError, match="needs a mask"):
        run.inpaint(images[:1], None)


def test_models_are_saved_exported_and_loaded(run, tmp_path):
    model = cm.load(run.save(tmp_path / "model"))
    file = run.export("safetensors", tmp_path / "weights")
    for other in (model, cm.load(file)):
        assert np.array_equal(other.sample(2, seed=0), run.sample(2, seed=0))
    with pytest.raises(cm.UserError, match="exists already"):
        run.export("safetensors", tmp_path / "weights")


def test_scores_have_errors_and_keys(run, photos):
    scores = cm.score(run, kinds=("FD", "KID"), n=200, seed=5)
    assert list(scores) == ["FD", "KID"]
    assert scores["FD"].name == "FD-digits-200"
    assert scores["FD"].error > 0
    assert scores["FD"].key["seed"] == 5
    own = cm.score(photos, "digits", extractor="digits")["FD"]
    worse = cm.score(run.sample(300, seed=0), "digits", extractor="digits")["FD"]
    assert 0 < own.value < 0.5 * worse.value


@pytest.mark.parametrize("form", ["tensor", "arrays", "folder", "npz", "dataset"])
def test_training_takes_images_in_any_form(form, digits, photos, tmp_path):
    images, labels = digits
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    np.savez(tmp_path / "digits.npz", arr_0=images, arr_1=labels)
    data = {
        "tensor": tensor,
        "arrays": (images, labels),
        "folder": photos,
        "npz": tmp_path / "digits.npz",
        "dataset": torch.utils.data.TensorDataset(tensor, torch.from_numpy(labels)),
    }[form]
    changes = {
        **SMALL,
        "network.blocks": 1,
        "network.channel_mult": (1,),
        "network.attention_resolutions": (),
        "averages": "constant",
    }
    changes["steps"] = 2
    made = cm.train("ict", data=data, out=tmp_path / "run", changes=changes, quiet=True)
    assert made.recipe.network.conditional == (form != "tensor")
    assert made.recipe.column.sigma_data == pytest.approx(float((tensor / 127.5 - 1).std()), abs=1e-3)
    assert made.class_names == {"tensor": (), "folder": tuple(f"digit {i}" for i in range(10))}.get(
        form, tuple("0123456789")
    )


def test_the_trainer_is_a_loop_that_stops_and_goes_on(run, tmp_path):
    """Interrupted after three steps and gone on with, it ends with the bits of the run that was not."""
    recipe = cm.override(cm.recipes.ict_digits(), {**TINY, "steps": 4})
    for step in cm.Trainer(recipe, out=tmp_path / "x", quiet=True):
        assert np.isfinite(step.loss)
        if step.number == 3:
            assert step.model().spec.shape == (1, 8, 8)
            break
    seen = []
    trainer = cm.Trainer(
        recipe, out=tmp_path / "x", quiet=True, callbacks=[lambda step: seen.append(step.number)]
    )
    trainer.train()
    assert seen == [3, 4], "the checkpoint is of step 2"
    one, other = (torch_weights(folder) for folder in (run.directory.root, tmp_path / "x"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_run_that_began_on_a_gpu_does_not_go_on_on_a_cpu(digits, tmp_path):
    from cm_ray.runs.resources import Resources

    recipe = cm.override(cm.recipes.ict_digits(), {**TINY, "steps": 1})
    Resources(device="cuda").save(tmp_path / "run")
    with pytest.raises(cm.UserError, match="run was begun on GPUs, and there is none here"):
        cm.Trainer(recipe, digits, out=tmp_path / "run")
    assert cm.Trainer(recipe, digits, out=tmp_path / "run", device="cpu").train().scores
    assert Resources.load(tmp_path / "run").device == "cpu"


def torch_weights(folder):
    return cm.load(folder).torch_model.state_dict()


def test_a_network_of_ones_own_by_the_trainer(tmp_path):
    recipe = cm.override(cm.recipes.ict_digits(), {**TINY, "network.conditional": False, "steps": 2})
    cm.Trainer(recipe, network=Tiny, out=tmp_path / "own", quiet=True).train()
    own = cm.load(tmp_path / "own")
    assert isinstance(own.torch_model.network, Tiny)
    assert own.sample(3, seed=0).shape == (3, 8, 8, 1)


def error(loss, f, x, options):
    """Return the loss on the same times and noise whenever it is called."""
    with torch.no_grad():
        return float(loss(f, x, generator=torch.Generator().manual_seed(0), **options).mean())


@pytest.mark.parametrize("method", ["ct", "cd", "edm"])
def test_a_network_of_ones_own_in_an_ordinary_loop(method, digits):
    """Ten lines: the loss falls, and samples come out."""
    torch.manual_seed(0)
    x = torch.from_numpy(digits[0]).permute(0, 3, 1, 2).float() / 127.5 - 1
    teacher = cm.Denoiser(Tiny(), cm.EDM(sigma_data=0.75))
    loss, options = {
        "ct": (
            cm.ConsistencyTraining(
                times=cm.Grid(cm.Doubling(10, 40)),
                distance=cm.PseudoHuber(),
                target=cm.ConstantDecay(),
                weight=cm.InverseGap(),
            ),
            {"total_steps": 200},
        ),
        "cd": (cm.ConsistencyDistillation(weight=cm.InverseGap()), {"teacher": teacher}),
        "edm": (cm.Denoising(), {}),
    }[method]
    wrap = cm.Denoiser if method == "edm" else cm.Consistency
    f = wrap(Tiny(), column=cm.EDM(sigma_data=0.75))
    optimizer = torch.optim.Adam(f.parameters(), lr=1e-2)
    before = error(loss, f, x, options)
    for k in range(200):
        batch = x[torch.randint(len(x), (32,))]
        value = loss(f, batch, step=k, **options).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert error(loss, f, x, options) < 0.95 * before
    sampler = cm.Heun(steps=4) if method == "edm" else cm.Multistep(taus=(0.8,))
    assert cm.sample(f, torch.randn(4, 1, 8, 8), sampler).shape == (4, 1, 8, 8)


class Odd(nn.Module):
    """A network that is not made of a shape and a number of classes."""

    def __init__(self):
        super().__init__()


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Odd, r"is made as Class\(shape, classes\), which fails"),
        (Tiny(), "the class itself"),
        (3, "the class itself"),
    ],
)
def test_networks_that_cannot_be_made_are_refused(network, sentence, tmp_path):
    recipe = cm.override(cm.recipes.ict_digits(), {**TINY, "network.conditional": False, "steps": 2})
    with pytest.raises(cm.UserError, match=sentence):
        cm.Trainer(recipe, network=network, out=tmp_path / "odd", quiet=True).train()


def test_a_sampler_is_an_object_and_a_kind_of_score_may_stand_alone(run):
    f = cm.Consistency(Tiny())
    with pytest.raises(cm.UserError, match="must be an object such as Multistep"):
        cm.sample(f, torch.zeros(1, 1, 8, 8), "one-step")
    assert list(cm.score(run, kinds="FD", n=100)) == ["FD"]
