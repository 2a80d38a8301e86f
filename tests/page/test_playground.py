"""The page gives the model's own samples and edits, and a sentence for what it refuses."""

import asyncio
import dataclasses
import json
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cm_ray.command_line.settings.app import PageSettings
from cm_ray.core.diffusion import Diffusion
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import grid_picture
from cm_ray.editing.model_edits import edited
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import from_uint8, to_uint8
from cm_ray.page.menus import OTHER, steps_menu, steps_of
from cm_ray.page.model_card import model_card
from cm_ray.page.playground import CanvasContent, EditForm, Playground
from cm_ray.page.requests import RequestLimit
from cm_ray.page.server import serve
from cm_ray.sampling.samplers import Heun
from tests import results
from tests.cluster.tiny import NETWORK, make_tiny_run
from tests.tracking.tracked_runs import score

CONDITIONAL = dataclasses.replace(NETWORK, conditional=True)
NOTHING = CanvasContent(None, ())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = make_tiny_run(
        tmp_path_factory.mktemp("runs") / "run", network=CONDITIONAL, time_points=((2.0,), (5.0, 0.5))
    )
    made.result_file.write_text(json.dumps(results.result(score(0.8649).to_row())))
    return made


@pytest.fixture
def play(run):
    return Playground(load_model(run.model))


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 1), dtype=np.uint8)


def painted(play, given, box, colour=(255, 0, 0, 255)):
    """Paint a box, in pixels of the model's, on the canvas."""
    picture = Image.fromarray(play.canvas(given)).convert("RGBA")
    layer = Image.new("RGBA", picture.size)
    scale = picture.width // 8
    ImageDraw.Draw(layer).rectangle([scale * side for side in box], fill=colour)
    return CanvasContent(Image.alpha_composite(picture, layer), (layer,))


def images_of(picture, count):
    """Cut a row of a grid into its images of 8x8."""
    factor = round(picture.height / 8)
    small = np.asarray(picture)[factor // 2 :: factor, factor // 2 :: factor]
    return [small[:, 9 * i : 9 * i + 8] for i in range(count)]


def test_every_step_of_sampling_is_shown(play):
    shown = list(play.sample(4, 3, 7, 2))
    assert [one.text for one in shown] == [f"`multistep@5.0,0.5`: step {i} of 3" for i in (1, 2, 3)]
    model = play.model
    samples = model.sample(
        torch.arange(4),
        seed=7,
        sampler=sampler_of(model.spec, steps=3),
        labels=torch.full((4,), 2),
    )
    np.testing.assert_array_equal(shown[-1].picture, grid_picture(to_uint8(samples)))
    assert (np.asarray(shown[0].picture) != np.asarray(shown[-1].picture)).any()


def test_what_is_painted_over_is_made_anew_and_nothing_else(play):
    given = pixels()
    form = EditForm(task="inpaint", steps=3, seed=5, label=1, samples=2)
    shown = list(play.edit(form, given, painted(play, given, (4, 0, 8, 8))))
    assert [one.text for one in shown] == [f"inpaint: step {i} of 3" for i in (1, 2, 3)]
    before, *results, truth = images_of(shown[-1].picture, 4)
    np.testing.assert_array_equal(truth, given[..., 0])
    np.testing.assert_array_equal(before[:, :4], given[:, :4, 0])
    assert (before[:, 4:] == 128).all()
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    for k, result in enumerate(results):
        made = edited(
            play.model,
            plan_edit("inpaint", play.spec.diffusion, play.spec.shape, steps=3),
            from_uint8(torch.from_numpy(given)).permute(2, 0, 1)[None],
            indices=torch.arange(1),
            seed=5 + k,
            mask=mask,
            labels=torch.tensor([1]),
        )
        np.testing.assert_array_equal(result, to_uint8(made)[0, 0])


def test_a_quarter_of_a_pixel_painted_over_is_enough(play):
    def kept(box):
        return int(play._mask(painted(play, pixels(), box)).sum())

    assert kept((0, 0, 0.6, 0.6)) == 63
    assert kept((0, 0, 1.3, 1.05)) == 62
    with pytest.raises(UserError, match="Nothing is painted over yet"):
        kept((0, 0, 0.3, 0.3))


def test_strokes_are_the_picture_with_what_is_painted_on_it(play):
    given = pixels()
    canvas = painted(play, given, (0, 0, 3.98, 7.98), (255, 255, 255, 255))
    form = EditForm(task="stroke", taus=(1.0,), samples=1, label=0)
    before, result, truth = images_of(list(play.edit(form, given, canvas))[-1].picture, 3)
    assert (before[:, :4] >= 254).all()
    np.testing.assert_array_equal(before[:, 5:], given[:, 5:, 0])
    np.testing.assert_array_equal(truth, before)
    assert (result != before).any()
    unpainted = CanvasContent(Image.fromarray(play.canvas(given)), ())
    before, *_ = images_of(list(play.edit(form, given, unpainted))[-1].picture, 3)
    np.testing.assert_array_equal(before, given[..., 0])


@pytest.mark.parametrize("settings", [{"task": "denoise", "sigma": 0.5}, {"task": "upscale", "factor": 4}])
def test_other_tasks(settings, play):
    steps = {} if settings["task"] == "denoise" else {"steps": 2}
    shown = list(play.edit(EditForm(samples=1, **settings, **steps), pixels(), NOTHING))
    before, result, truth = images_of(shown[-1].picture, 3)
    assert (before != truth).any()
    assert (before != result).any()
    if settings["task"] == "upscale":
        assert (before == before.reshape(2, 4, 2, 4).mean((1, 3)).round().repeat(4, 0).repeat(4, 1)).all()


def test_the_way_between_seeds(play):
    (shown,) = play.between(3, 8, 5, 2, 1)
    assert shown.text == "seed 3 to seed 8"
    assert shown.picture.width > shown.picture.height


def test_uploads_and_samples_become_canvases(play, tmp_path):
    Image.fromarray(np.kron(pixels()[..., 0], np.ones((2, 3), np.uint8))).save(tmp_path / "a.png")
    opened = play.opened((tmp_path / "a.png").read_bytes())
    assert opened.shape == (8, 8, 1)
    assert play.canvas(opened).shape == (384, 384, 3)
    sample, label = play.one_sample(3, None)
    assert label == int(play.model.sample_labels(torch.arange(1), 3)[0])
    np.testing.assert_array_equal(sample, play.one_sample(3, label)[0])


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda play: play.sample(0, 1, 0, None), "Take 1 to 64 images, not 0"),
        (lambda play: play.sample(65, 1, 0, None), "Take 1 to 64 images, not 65"),
        (lambda play: play.sample(1, 1001, 0, None), "Take 1 to 1000 steps, or 0 for the default, not 1001"),
        (lambda play: play.sample(1, 1, -1, None), "seed must be 0 or more, not -1"),
        (lambda play: play.sample(1, None, 0, None), "A number is missing"),
        (lambda play: play.sample(1, 1, 0, 10), "has the classes 0 to 9, and no 10"),
        (lambda play: play.between(0, -1, 5, 2, None), "seed must be 0 or more, not -1"),
        (lambda play: play.between(0, 1, 500, 2, None), "Take 1 to 64 images, not 500"),
        (lambda play: play.between(0, 1, 13, 5, None), "Take 1 to 64 images in total, not 13 times 5"),
        (lambda play: play.edit(EditForm(task="stroke"), None, NOTHING), "There is no image yet"),
        (lambda play: play.edit(EditForm(task="inpaint"), pixels(), NOTHING), "Nothing is painted over yet"),
        (lambda play: play.edit(EditForm(task="colorize"), pixels(), NOTHING), "this one makes grey ones"),
        (
            lambda play: play.edit(EditForm(task="denoise"), pixels(), NOTHING),
            "give its sigma, as 0.5",
        ),
        (lambda play: iter([play.opened(b"no image")]), "The file is not a readable image"),
    ],
)
def test_what_is_refused(ask, sentence, play):
    with pytest.raises(UserError, match=sentence):
        list(ask(play))


def test_seeds_are_samples_of_their_own(play):
    found = play.seeds(5, 3, 2, None)
    model = play.model
    for seed, each in zip((5, 6, 7), found, strict=True):
        sample = model.sample(torch.arange(1), seed=seed, sampler=sampler_of(model.spec, steps=2))
        assert np.abs(each.pixels.astype(int) - to_uint8(sample)[0].permute(1, 2, 0).numpy()).max() <= 1
        label = int(model.sample_labels(torch.arange(1), seed))
        assert (each.seed, each.label) == (seed, label)
        picture, caption = play.shown_alone(each)
        assert caption == f"{seed} · {label}"
        assert picture.size == (192, 192)
        np.testing.assert_array_equal(np.asarray(picture)[12::24, 12::24], each.pixels[..., 0])
    assert {each.label for each in play.seeds(0, 4, 1, 3)} == {3}
    with pytest.raises(UserError, match="Take 1 to 64 images, not 0"):
        play.seeds(0, 0, 1, None)


def test_the_menu_of_steps_has_their_scores(run):
    model = load_model(run.model)
    card = model_card(model, str(run.root), run.model, "")
    menu = steps_menu(model.spec, card.scores)
    assert menu == {"1 step: FD-digits-1797 0.865": 0, "2 steps": 2, "4 steps": 4}
    assert steps_of(menu, "4 steps", 3) == 4
    assert steps_of(menu, OTHER, 7) == 7
    with pytest.raises(UserError, match="Write a number of steps"):
        steps_of(menu, OTHER, None)
    own = dataclasses.replace(model.spec, sampler=sampler_of(model.spec, steps=3))
    assert steps_menu(own) == {"3 steps": 0, "1 step": 1, "2 steps": 2, "4 steps": 4}
    teacher = dataclasses.replace(model.spec, sampler=Heun(18), diffusion=Diffusion(boundary="none"))
    assert steps_menu(teacher) == {"heun:18": 0}


def test_smooth_pictures_have_the_same_size_and_no_edges(play):
    (square,), (smooth,) = (
        [frame.picture for frame in play.sample(4, 1, 0, 3, smooth=smooth)] for smooth in (False, True)
    )
    assert square.size == smooth.size
    steps = [np.abs(np.diff(np.asarray(each)[:200, :200].astype(int))).max() for each in (square, smooth)]
    assert steps[1] < steps[0] / 3


def test_facts_tell_scores_and_time_points(run):
    told = model_card(load_model(run.model), str(run.root), run.model, "").text
    assert "| FD-digits-1797 | `one-step` | 0.8649 |" in told
    assert "| 2 | 2 |" in told
    assert "| 3 | 5, 0.5 |" in told
    assert "8x8, grey" in told


def test_without_gradio_the_page_says_how_to_get_it(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "set by the page")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with pytest.raises(UserError, match=r"gradio is not installed: run pip install 'cm_ray\[app\]'"):
        serve(PageSettings(model=str(run.root), port=port))
    with pytest.raises(UserError, match="--port must be 1 to 65535, not 0"):
        serve(PageSettings(model=str(run.root), port=0))


def test_bodies_of_requests_are_counted():
    """It is refused also when the request does not say beforehand how much it brings."""
    read, answers = [], []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            read.append(message["body"])
        read.append(message["type"])

    def ask(headers, pieces):
        async def receive():
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message):
            answers.append(message.get("status"))

        read.clear(), answers.clear()
        scope = {"type": "http", "headers": headers, "method": "POST", "path": "/gradio_api/upload"}
        asyncio.run(RequestLimit(app, 10)(scope, receive, send))
        return read, answers

    assert ask([], [b"12345", b"67890", b""]) == ([b"12345", b"67890", "http.request"], [])
    assert ask([], [b"12345", b"678901", b"", b""]) == ([b"12345", "http.disconnect"], [])
    assert ask([(b"content-length", b"11")], [b""]) == ([], [413, None])
    assert ask([(b"content-length", b"-1")], [b""]) == ([], [413, None])
