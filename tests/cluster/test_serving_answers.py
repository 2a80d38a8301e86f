"""Requests over HTTP without Ray: what is answered, and what is refused with which status."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from cm_ray.api.trained_model import TrainedModel
from cm_ray.cluster.serving.answering import Service
from cm_ray.cluster.serving.asked import Limits, SampleAsked, sample_pieces
from cm_ray.cluster.serving.pieces import made_together
from cm_ray.drawing.pictures import grid_picture
from cm_ray.errors import UserError
from cm_ray.hosts import known_names
from cm_ray.networks.formats.reading import load_model
from tests.cluster.tiny import NETWORK, save_tiny

MOST = 4
LIMITS = Limits(samples=10, steps=5, mib=1)


def pixels(seed, size=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


MASK = np.zeros((8, 8), np.uint8)
MASK[:, :4] = 255


class Served:
    """A service in this process, and what it has counted."""

    def __init__(self, model):
        self.model, self.counted, self.metrics = model, [], lambda: "a_metric 1\n"
        self.service = Service(
            name="runs/tiny",
            spec=model.spec,
            limits=LIMITS,
            most=MOST,
            hosts=known_names(["Studio.example"]),
            make=self.make,
            metrics=lambda: self.metrics(),
            count=lambda task, images: self.counted.append((task, images)),
        )
        self.client = TestClient(self.app, base_url="http://localhost:8000")

    async def make(self, piece):
        assert len(piece) <= MOST
        (made,) = made_together(self.model, [piece], (MOST,))
        return made

    async def app(self, scope, receive, send):
        answer = await self.service.answer(Request(scope, receive))
        await answer(scope, receive, send)

    def ask(self, path, **values):
        return self.client.post(path, json=values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    network = replace(NETWORK, conditional=True)
    return save_tiny(tmp_path_factory.mktemp("m") / "m", network=network, time_points=((2.0,),))


@pytest.fixture
def served(folder):
    return Served(load_model(folder))


def picture(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def sampled(model, n, **settings):
    return TrainedModel(model).sample(8, batch_size=MOST, **settings)[:n]


def test_a_sample_is_a_picture_of_its_size(served):
    expected = sampled(served.model, 1, seed=3, first=5, label="7", steps=2)
    shown = picture(served.ask("/sample", seed=3, first=5, label="7", steps=2))
    np.testing.assert_array_equal(shown, expected[0, :, :, 0])
    assert served.counted == [("sample", 1)]


def test_several_samples_are_a_grid_or_arrays_with_their_classes(served):
    expected = sampled(served.model, 6, seed=3)
    shown = picture(served.ask("/sample", samples=6, seed=3))
    grid = grid_picture(expected.tensor(), least_pixels=0)
    np.testing.assert_array_equal(shown, np.asarray(grid))
    arrays = np.load(io.BytesIO(served.ask("/sample", samples=6, seed=3, format="npz").content))
    np.testing.assert_array_equal(arrays["arr_0"], expected)
    np.testing.assert_array_equal(arrays["arr_1"], expected.labels)
    assert list(arrays["class_names"]) == list("0123456789")


def test_classes_are_drawn_of_those_that_are_asked_for(served):
    arrays = np.load(io.BytesIO(served.ask("/sample", samples=8, label="3,8", format="npz").content))
    assert set(arrays["arr_1"].tolist()) == {3, 8}


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("inpaint", {"steps": 3}),
        ("upscale", {"factor": 4, "steps": 2}),
        ("stroke", {"taus": [1.0, 0.5]}),
        ("denoise", {"sigma": 0.5}),
    ],
)
def test_edits_are_the_models(task, settings, served):
    images = np.stack([pixels(seed) for seed in range(4)])[..., None]
    masks = {"masks": [png(MASK)]} if task == "inpaint" else {}
    encoded = [png(image[:, :, 0]) for image in images]
    answer = served.ask(
        "/edit", task=task, images=encoded, label="3", seed=2, format="npz", **masks, **settings
    )
    assert answer.status_code == 200, answer.text
    mask = {"mask": MASK > 0} if masks else {}
    expected = TrainedModel(served.model).edit(task, images, label="3", seed=2, **mask, **settings)
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content))["arr_0"], expected)
    assert served.counted == [(task, 4)]


def test_masks_may_be_one_for_each_image(served):
    answer = served.ask(
        "/edit",
        task="inpaint",
        images=[png(pixels(0)), png(pixels(1))],
        masks=[png(MASK), png(255 - MASK)],
        steps=2,
        format="npz",
    )
    made = np.load(io.BytesIO(answer.content))["arr_0"][..., 0]
    np.testing.assert_array_equal(made[0][:, :4], pixels(0)[:, :4])
    np.testing.assert_array_equal(made[1][:, 4:], pixels(1)[:, 4:])


def test_facts_health_and_metrics(served):
    facts = served.client.get("/model").json()
    assert facts["classes"] == list("0123456789")
    assert (facts["width"], facts["channels"], facts["time_points"]) == (8, 1, {"2": [2.0]})
    assert facts["tasks"] == ["inpaint", "upscale", "stroke", "denoise"]
    assert served.client.get("/health").json() == {"status": "ok", "model": "runs/tiny"}
    assert served.client.get("/metrics").text == "a_metric 1\n"

    def away():
        raise ConnectionRefusedError("nobody listens")

    served.metrics = away
    refused(served.client.get("/metrics"), 503, "cannot be read now (nobody listens)")


def refused(answer, status, sentence):
    assert answer.status_code == status, answer.text
    said = answer.json()["error"]
    assert sentence in said
    assert said.endswith(".")
    assert "\n" not in said


IMAGE = png(pixels(0))


@pytest.mark.parametrize(
    ("path", "asked", "sentence"),
    [
        ("/sample", {"samples": 11}, "samples must be 1 to 10, not 11"),
        ("/sample", {"samples": 0}, "samples must be 1 to 10, not 0"),
        ("/sample", {"seed": -1}, "seed must be at least 0"),
        ("/sample", {"first": 2**32}, "first must be 0 to 4,294,967,295"),
        ("/sample", {"steps": 6}, "at most 5 network evaluations here, not 6"),
        ("/sample", {"taus": [9, 8, 7, 6, 5]}, "at most 5 network evaluations here, not 6"),
        ("/sample", {"sampler": "heun:18"}, "heun:18 is for diffusion models"),
        ("/sample", {"steps": 2, "sampler": "one-step"}, "Give one of a sampler"),
        ("/sample", {"label": "cat"}, "The model has no class 'cat'"),
        ("/sample", {"label": 7}, "label must be str, not 7"),
        ("/sample", {"sampels": 3}, "sampels is not a setting: did you mean 'samples'?"),
        ("/sample", {"format": "gif"}, "format cannot be 'gif'"),
        ("/edit", {}, "images must be 1 to 10, not 0"),
        ("/edit", {"task": "stroke", "images": [IMAGE] * 11}, "images must be 1 to 10, not 11"),
        ("/edit", {"task": "strok", "images": [IMAGE]}, "no task 'strok': did you mean 'stroke'"),
        ("/edit", {"task": "colorize", "images": [IMAGE]}, "this one makes grey ones"),
        ("/edit", {"task": "inpaint", "images": [IMAGE], "steps": 2}, "takes one mask, or one for each of 1"),
        ("/edit", {"task": "stroke", "images": [IMAGE], "masks": [IMAGE]}, "Masks go with inpaint"),
        ("/edit", {"task": "stroke", "images": ["no base64"]}, "Image 0 is not base64"),
        ("/edit", {"task": "stroke", "images": ["AAAA"]}, "Image 0 is not a readable image"),
        ("/edit", {"task": "stroke", "images": [png(pixels(0, (9, 9)))]}, "set resize to crop"),
        ("/edit", {"task": "upscale", "images": [IMAGE]}, "at most 5 network evaluations here, not 39"),
        ("/edit", {"task": "stroke", "images": [IMAGE], "label": "x"}, "no class 'x'"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(path, asked, sentence, served):
    answer = served.ask(path, **asked)
    said = answer.json()["error"]
    assert answer.status_code == 422
    assert sentence in said
    assert not served.counted


def test_other_requests_are_refused_with_the_status_of_http(served):
    client = served.client
    refused(client.get("/"), 404, "There is no /: ask /sample")
    refused(client.get("/sample"), 405, "/sample is asked by POST, not by GET")
    refused(client.post("/health", json={}), 405, "/health is asked by GET")
    refused(client.post("/sample", data={"samples": 1}), 415, "content type application/json")
    refused(client.post("/sample", content="{", headers={"content-type": "application/json"}), 400, "JSON")
    refused(client.post("/sample", json=[1]), 400, "must be an object")
    refused(client.get("/health", headers={"host": "evil.example"}), 421, "not started for this host name")
    assert client.get("/health", headers={"host": "studio.example:8000"}).status_code == 200
    assert client.get("/health", headers={"host": "[::1]:8000"}).status_code == 200


def test_a_request_that_is_too_large_is_not_read_to_its_end(served):
    refused(served.ask("/edit", images=["A" * (1 << 20)]), 413, "at most 1 MiB")
    read = []

    def parts():
        for number in range(100):
            read.append(number)
            yield b" " * (1 << 18)

    answer = served.client.post("/sample", content=parts(), headers={"content-type": "application/json"})
    refused(answer, 413, "at most 1 MiB")


def test_a_failure_of_the_model_is_a_sentence(served, monkeypatch):
    async def failing(piece):
        return UserError("3 of 64 pixels that the model made are not finite.")

    served.service = replace(served.service, make=failing)
    refused(served.ask("/sample"), 500, "not finite")


def test_a_request_is_cut_into_pieces(served):
    pieces = sample_pieces(SampleAsked(samples=10, seed=1), served.model.spec, LIMITS, MOST)
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert torch.cat([piece.indices for piece in pieces]).tolist() == list(range(10))
