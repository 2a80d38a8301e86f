"""Editing files: what is written, that it is what the model makes, and what is refused."""

import dataclasses
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cm_ray.cluster.editing.edit_files import edit
from cm_ray.cluster.editing.edit_plan import plan_request
from cm_ray.command_line.settings.edit import Editing
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.noise import Purpose, normal
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.editing.files import edit_unit
from cm_ray.editing.model_edits import edited
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import from_uint8, to_uint8
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.sampling.samplers import Heun
from tests.cluster.tiny import NETWORK, save_tiny

CONDITIONAL = replace(NETWORK, conditional=True)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "model", network=CONDITIONAL)


def save(path, seed=0, size=(8, 8), mode="L"):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def image(tmp_path):
    return save(tmp_path / "in" / "one.png")


@pytest.fixture
def mask(tmp_path):
    path, pixels = tmp_path / "mask.png", np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255
    Image.fromarray(pixels).save(path)
    return path


def read(path):
    return torch.from_numpy(np.array(Image.open(path)))[None, None]


def run(model_folder, task, tmp_path, **settings):
    defaults = {"out": tmp_path / "out", "samples": 2}
    paths = {name: str(value) for name, value in settings.items() if name in ("image", "mask")}
    nfe = {"nfe": settings.pop("steps")} if "steps" in settings else {}
    return edit(Editing(task=task, **({"model": str(model_folder)} | defaults | settings | paths | nfe)))


def expected(model_folder, task, y, *, seed, label=None, mask=None, index=0, **settings):
    model = load_model(model_folder)
    labels = None if label is None else torch.tensor([label])
    plan = plan_edit(task, model.spec.diffusion, model.spec.shape, **settings)
    made = edited(
        model, plan, from_uint8(y), indices=torch.tensor([index]), seed=seed, mask=mask, labels=labels
    )
    return to_uint8(made)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("inpaint", {"steps": 3}),
        ("upscale", {"steps": 3, "factor": 4}),
        ("stroke", {}),
        ("stroke", {"taus": (1.0,)}),
        ("denoise", {"sigma": 0.5}),
    ],
)
def test_results_are_the_models(task, settings, model_folder, tmp_path, image, mask):
    files = {"mask": mask} if task == "inpaint" else {}
    grid, *results = run(model_folder, task, tmp_path, image=image, seed=5, label="3", **settings, **files)
    names = ["grid.png", "one-0.png", "one-1.png"]
    assert [path.name for path in (grid, *results)] == (names[:2] if task == "denoise" else names)
    kept = read(mask) > 0 if files else None
    for k, path in enumerate(results):
        made = expected(model_folder, task, read(image), seed=5 + k, label=3, mask=kept, **settings)
        assert torch.equal(read(path), made)
    columns = {"inpaint": 4, "upscale": 4, "stroke": 3, "denoise": 2}[task]
    width, height = Image.open(grid).size
    assert width / height == pytest.approx((columns * 9 - 1) / 8)


def test_a_mask_of_all_white_returns_the_file(model_folder, tmp_path, image):
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    _, result, _ = run(model_folder, "inpaint", tmp_path, image=image, mask=tmp_path / "white.png", steps=3)
    assert torch.equal(read(result), read(image))


def test_noise_is_added_first_if_asked(model_folder, tmp_path, image):
    _, result = run(
        model_folder, "denoise", tmp_path, image=image, sigma=0.5, add_noise=True, seed=4, label="1"
    )
    noisy = from_uint8(read(image)) + 0.5 * normal(4, 0, torch.arange(1), Purpose.NOISE, (1, 8, 8))
    with torch.no_grad():
        made = load_model(model_folder)(noisy, torch.tensor([0.5]), torch.tensor([1])).clamp(-1, 1)
    assert torch.equal(read(result), to_uint8(made))


def test_small_images_and_large_ones_are_upscaled_alike(model_folder, tmp_path):
    small = save(tmp_path / "small.png", size=(4, 4))
    Image.open(small).resize((8, 8), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    results = [
        read(run(model_folder, "upscale", tmp_path, image=tmp_path / name, steps=2, label="1")[1])
        for name in ("small.png", "large.png")
    ]
    assert torch.equal(*results)


def test_colours_are_made_for_grey_images(tmp_path):
    folder = save_tiny(tmp_path / "colour", network=CONDITIONAL, shape=(3, 8, 8))
    grey = save(tmp_path / "grey.png")
    _, result, _ = run(folder, "colorize", tmp_path, image=grey, steps=3, label="0")
    made = np.array(Image.open(result)).astype(float)
    assert made.shape == (8, 8, 3)
    assert np.ptp(made, axis=2).mean() > 5


def test_ways_between_two_seeds(model_folder, tmp_path):
    grid, *paths = run(model_folder, "interpolate", tmp_path, seed=3, frames=5, label="7", batch_size=3)
    assert [path.name for path in paths[:6]] == [f"way-0-{i}.png" for i in range(5)] + ["way-1-0.png"]
    model = load_model(model_folder)
    for seed, frame in ((3, 0), (4, 4)):
        ends = model.sample(
            torch.arange(2), seed=seed, sampler=sampler_of(model.spec), labels=torch.tensor([7, 7])
        )
        for way in (0, 1):
            difference = read(paths[5 * way + frame]).int() - to_uint8(ends[way : way + 1]).int()
            assert difference.abs().max() <= 1, "but for another batch size, the same"
    assert Image.open(grid).width > Image.open(grid).height


def test_labels_of_folders_called_as_the_classes(model_folder, tmp_path):
    spec = load_model(model_folder).spec
    for name in ("3/a.png", "3/b.png", "7/c.png"):
        save(tmp_path / "in" / name)

    def labels(**settings):
        given = Editing(task="stroke", model="", image=str(tmp_path / "in"), **settings)
        return plan_request(given, spec).labels

    assert labels() == (3, 3, 7)
    assert labels(label="1") == (1, 1, 1)
    save(tmp_path / "in" / "other" / "d.png")
    with pytest.raises(UserError, match=r"in/other is not named after a class, but other sub-folders are"):
        labels()
    assert labels(label="1") == (1, 1, 1, 1)
    for name in ("none", "of", "them"):
        save(tmp_path / "else" / name / "a.png")
    given = Editing(task="stroke", model="", image=str(tmp_path / "else"))
    assert plan_request(given, spec).labels == ()


def test_a_sub_folder_is_the_class_of_its_name_never_of_its_number(model_folder, tmp_path):
    spec = load_model(model_folder).spec
    counts = {"class_counts": (5, 5, 5, 0)}
    spec = dataclasses.replace(spec, class_names=("0", "1", "10", "2"), **counts)
    for name in ("10/a.png", "1/b.png"):
        save(tmp_path / "in" / name)
    given = Editing(task="stroke", model="", image=str(tmp_path / "in"))
    assert plan_request(given, spec).labels == (1, 2), "in the order of the files: 1, 10"
    assert plan_request(dataclasses.replace(given, label="10"), spec).labels == (2, 2)
    for refused in (dataclasses.replace(given, label="2"), given):
        save(tmp_path / "in" / "2" / "c.png")
        with pytest.raises(UserError, match="on no image of the class '2'; give another class"):
            plan_request(refused, spec)


def test_what_another_edit_of_the_same_image_left_is_removed_and_no_more(model_folder, tmp_path, image):
    other = save(tmp_path / "in" / "two.png", seed=1)
    run(model_folder, "stroke", tmp_path, image=other, label="1", samples=1)
    _, *first = run(model_folder, "stroke", tmp_path, image=image, label="1", samples=4)
    _, *again = run(model_folder, "stroke", tmp_path, image=image, label="1", samples=1)
    assert again == first[:1]
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["edits.json", "grid.png", "one-0.png", "two-0.png"]
    run(model_folder, "interpolate", tmp_path, label="1", samples=3, frames=2)
    _, *ways = run(model_folder, "interpolate", tmp_path, label="1", samples=1, frames=2)
    assert sorted(tmp_path.glob("out/way-*")) == ways


def test_a_repeat_goes_on(model_folder, tmp_path, image, monkeypatch):
    made = []
    monkeypatch.setattr(
        "cm_ray.cluster.editing.edit_files.edit_unit",
        lambda model, request, first, count: made.append(first) or edit_unit(model, request, first, count),
    )
    settings = {"image": image, "label": "1", "samples": 2}
    grid, *results = run(model_folder, "stroke", tmp_path, **settings)
    content = [path.read_bytes() for path in (grid, *results)]
    assert [grid, *results] == run(model_folder, "stroke", tmp_path, **settings)
    assert made == [0]
    results[1].unlink()
    run(model_folder, "stroke", tmp_path, **settings)
    assert made == [0, 0]
    assert [path.read_bytes() for path in (grid, *results)] == content
    run(model_folder, "stroke", tmp_path, **settings | {"label": "2"})
    assert results[0].read_bytes() != content[1]
    save(image, seed=9)
    run(model_folder, "stroke", tmp_path, **settings | {"label": "2"})
    assert made == [0] * 4, "another class, another image"


@pytest.mark.ray
def test_a_folder_is_edited_on_ray_as_its_images_are(ray_cluster, model_folder, tmp_path, mask):
    for index in range(7):
        save(tmp_path / "many" / "sub" / f"{index}.png", seed=index)
    half_cores = ActorSettings(count=2, cpus_each=0.5)
    settings = {"mask": mask, "steps": 2, "label": "2", "batch_size": 3, "actors": half_cores}
    grid, *results = run(model_folder, "inpaint", tmp_path, image=tmp_path / "many", **settings)
    names = [str(path.relative_to(tmp_path / "out")) for path in results]
    assert names == [f"sub/{index}-{k}.png" for index in range(7) for k in range(2)]
    kept = read(mask) > 0
    for index in (0, 4, 6):
        y = read(tmp_path / "many" / "sub" / f"{index}.png")
        made = expected(model_folder, "inpaint", y, seed=1, label=2, mask=kept, index=index, steps=2)
        assert (read(results[2 * index + 1]).int() - made.int()).abs().max() <= 1
        assert torch.equal(read(results[2 * index + 1])[kept], y[kept])
    assert grid.name == "grid.png"
    content = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in results}
    for gone in (results[6], results[8]):  # both in the second unit of three
        gone.unlink()
    run(model_folder, "inpaint", tmp_path, image=tmp_path / "many", **settings)
    assert {path: path.read_bytes() for path in results} == {path: was[0] for path, was in content.items()}
    kept = [path for path in results if path.stat().st_mtime_ns == content[path][1]]
    assert kept == results[:6] + results[12:], "what was there is not made again"


class TestBadInput:
    """One sentence, and nothing written."""

    @pytest.fixture(autouse=True)
    def _nothing_is_written(self, tmp_path):
        yield
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("task", "settings", "sentence"),
        [
            ("inpaint", {"image": "nowhere.png"}, "There is no image 'nowhere.png'"),
            ("inpaint", {"image": ""}, "There is no image ''"),
            ("inpaint", {}, "There is no mask ''"),
            ("inpaint", {"mask": "nowhere.png"}, "There is no mask 'nowhere.png'"),
            ("stroke", {"mask": "mask.png"}, "--mask goes with inpaint, not with stroke"),
            ("stroke", {"add_noise": True}, "--add-noise goes with denoise"),
            ("stroke", {"to_seed": 4}, "--to-seed goes with interpolate"),
            ("stroke", {"samples": 0}, "--samples must be at least 1"),
            ("stroke", {"batch_size": -1}, "--batch-size must be at least 0, not -1"),
            ("stroke", {"seed": -1}, "Seeds must not be negative"),
            ("stroke", {"label": "10"}, "no class '10': "),
            ("stroke", {"taus": (90.0,)}, "at most 80, not 90"),
            ("stroke", {"model": "nowhere"}, "nowhere is not a model; give a run directory"),
            (
                "upscale",
                {"factor": 3},
                "A factor of 3 does not divide images of 8x8 pixels; give one of 2, 4, 8",
            ),
            ("colorize", {}, "this one makes grey ones"),
            ("denoise", {}, "give its sigma, as 0.5"),
            ("interpolate", {}, "interpolate goes from seed to seed"),
            ("interpolate", {"image": "", "frames": 1}, "--frames must be at least 2"),
            ("interpolate", {"image": "", "nfe": -1, "label": "1"}, "--nfe must be at least 1"),
            (
                "interpolate",
                {"image": ""},
                "interpolate works within one class .*; give the class with label",
            ),
            ("interpolate", {"image": "", "resize": True}, "goes from seed to seed: leave --resize out"),
            ("stroke", {"frames": 3}, "--frames goes with interpolate, not with stroke"),
            ("stroke", {"actors": ActorSettings(count=2)}, "actors is for a folder; set device"),
        ],
    )
    def test_settings(self, task, settings, sentence, model_folder, tmp_path, image):
        with pytest.raises(UserError, match=sentence):
            run(model_folder, task, tmp_path, **({"image": image} | settings))

    def test_files(self, model_folder, tmp_path, image, mask):
        wrong = save(tmp_path / "wrong.png", size=(9, 9))
        with pytest.raises(UserError, match=r"wrong.png is 9x9, and the model's images are 8x8: set resize"):
            run(model_folder, "stroke", tmp_path, image=wrong)
        with pytest.raises(
            UserError, match=r"wrong.png is 9x9 and its image 8x8: give a mask of the image's"
        ):
            run(model_folder, "inpaint", tmp_path, image=image, mask=wrong)
        image.write_bytes(image.read_bytes()[:50])
        with pytest.raises(UserError, match=r"one.png is not a readable image \(image file is truncated\)"):
            run(model_folder, "stroke", tmp_path, image=image)

    def test_files_are_looked_at_before_the_first_is_edited(self, model_folder, tmp_path, mask):
        for index in range(12):
            save(tmp_path / "many" / f"{index:02}.png")
        (tmp_path / "many" / "11.png").write_bytes(b"no image")
        with pytest.raises(UserError, match=r"11.png is not a readable image"):
            run(model_folder, "stroke", tmp_path, image=tmp_path / "many")
        save(tmp_path / "many" / "11.png", size=(9, 9))
        with pytest.raises(UserError, match=r"mask.png is 8x8 and its image 9x9"):
            run(model_folder, "inpaint", tmp_path, image=tmp_path / "many", mask=mask, resize=True)
        with pytest.raises(UserError, match="device is for a single image"):
            run(model_folder, "stroke", tmp_path, image=tmp_path / "many", device="cpu")

    def test_no_file_is_lost(self, model_folder, tmp_path, image, mask):
        """Results replace neither what is edited nor what no edit has made."""

        def refused(sentence, task="stroke", **settings):
            files = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
            with pytest.raises(UserError, match=sentence):
                run(model_folder, task, tmp_path, **settings)
            assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == files

        folder = image.parent
        save(folder / "one-0.png")
        among = r"grid.png would be among the images of .*in, and the next run would edit it"
        refused(among, image=folder, out=folder)
        refused(among, image=folder, out=folder / "deeper")
        refused(r"one-0.png exists and is not a result of an edit", image=image, out=folder)
        refused("is an input and would be replaced", image=save(folder / "grid.png"), out=folder)
        white = Image.new("L", (8, 8), 255)
        white.save(tmp_path / "one-1.png")
        out = {"image": image, "mask": tmp_path / "one-1.png", "out": tmp_path}
        refused(r"one-1.png is an input and would be replaced", "inpaint", **out)
        (tmp_path / "link").symlink_to(folder)
        refused("would be among the images of .*link, and the", image=tmp_path / "link", out=folder)

    def test_folders(self, model_folder, tmp_path, image, mask):
        with pytest.raises(UserError, match="is a folder; give a file as the mask of a single image"):
            run(model_folder, "inpaint", tmp_path, image=image, mask=tmp_path)
        (tmp_path / "masks").mkdir()
        with pytest.raises(UserError, match=r"There is no mask .*masks/one.png; give every mask"):
            run(model_folder, "inpaint", tmp_path, image=image.parent, mask=tmp_path / "masks")
        save(image.with_suffix(".jpg"))
        with pytest.raises(UserError, match="2 images named one that differ only in their endings"):
            run(model_folder, "stroke", tmp_path, image=image.parent)
        os.mkdir(tmp_path / "empty")
        with pytest.raises(UserError, match="holds no images"):
            run(model_folder, "stroke", tmp_path, image=tmp_path / "empty")

    def test_models(self, tmp_path, image, mask):
        denoiser = save_tiny(tmp_path / "d", diffusion=Diffusion(boundary="none"), sampler=Heun(steps=2))
        with pytest.raises(UserError, match="stroke is for consistency models, and this is a diffusion"):
            run(denoiser, "stroke", tmp_path, image=image)
        with pytest.raises(UserError, match="heun:2 cannot put back what is known; give pc:100"):
            run(denoiser, "inpaint", tmp_path, image=image, mask=mask, sampler="heun:2")
        plain = save_tiny(tmp_path / "u")
        with pytest.raises(UserError, match="trained without classes; leave label out"):
            run(plain, "stroke", tmp_path, image=image, label="1")
