"""A network with a weight that is not finite makes no images, through whatever door they are wanted."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray.api.trained_model import TrainedModel
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.editing.files import EditRequest, edit_unit
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import to_uint8
from cm_ray.page.playground import CanvasContent, EditForm, Playground
from cm_ray.sampling.finite import finite
from cm_ray.sampling.samplers import Multistep, OneStep
from cm_ray.tracking.pyfunc_model import ConsistencyPyfunc
from tests.tracking.tracked_runs import tiny_model

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)


@pytest.fixture(params=[math.nan, math.inf, -math.inf], ids=str)
def spoilt(request):
    """Return a model in which one weight became another value after it was loaded."""
    model = tiny_model()
    with torch.no_grad():
        next(weights for name, weights in model.named_parameters() if "out" in name)[0] = request.param
    return model


def served(model, table, **params):
    served = ConsistencyPyfunc()
    served.model = model
    return served.predict(None, pd.DataFrame(table), params)


def png(path):
    Image.fromarray(PIXELS[..., 0]).save(path, "PNG")
    return path


def edited_file(model, folder):
    edit = plan_edit("upscale", model.spec.diffusion, model.spec.shape)
    return edit_unit(model, EditRequest(edit=edit, files=(png(folder / "x.png"),)), 0, 1)


def bytes_of_file():
    stream = io.BytesIO()
    png(stream)
    return stream.getvalue()


DOORS = {
    "request": lambda model, _: sample_all(model, Request(count=2, seed=0, sampler=OneStep())),
    "steps": lambda model, _: sample_all(model, Request(count=2, seed=0, sampler=Multistep((0.8,)))),
    "sample": lambda model, _: TrainedModel(model).sample(2),
    "interpolate": lambda model, _: TrainedModel(model).interpolate(2),
    "edit": lambda model, _: TrainedModel(model).upscale(PIXELS),
    "denoise": lambda model, _: TrainedModel(model).denoise(PIXELS, 0.5),
    "inpaint": lambda model, _: TrainedModel(model).inpaint(PIXELS, np.zeros((8, 8), bool)),
    "edited file": edited_file,
    "page, sample": lambda model, _: list(Playground(model).sample(2, 0, 0, None)),
    "page, between": lambda model, _: list(Playground(model).between(0, 1, 2, 1, None)),
    "page, one sample": lambda model, _: Playground(model).one_sample(0, None),
    "page, edit": lambda model, _: list(
        Playground(model).edit(EditForm(task="upscale"), PIXELS, CanvasContent(None, ()))
    ),
    "served sample": lambda model, _: served(model, {"index": [0, 1]}),
    "served edit": lambda model, _: served(model, {"image": [bytes_of_file()]}, task="upscale"),
    "function": lambda model, _: cm.sample(model, torch.randn(2, 1, 8, 8)),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_hands_out_images(spoilt, door, tmp_path):
    with pytest.raises(
        UserError, match=r"pixels that the model made are not finite: its weights are damaged"
    ):
        DOORS[door](spoilt, tmp_path)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_hands_out_those_of_a_sound_network(door, tmp_path):
    DOORS[door](tiny_model(), tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_pixel_is_enough(value):
    images = torch.zeros(2, 3, 4, 4)
    assert finite(images) is images
    assert (to_uint8(images) == 128).all()
    images[1, 2, 3, 0] = value
    with pytest.raises(
        UserError, match=r"^1 of 96 pixels .* Take another checkpoint, or precision float32.$"
    ):
        to_uint8(images)
