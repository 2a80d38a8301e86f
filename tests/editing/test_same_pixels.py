"""A file has the same pixels in training, in shards, in edits, on the page and in the served model."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray.api.pictures import pixels_of
from cm_ray.data.interface.reading import Reading
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import load_all
from cm_ray.editing.files import EditRequest, read_inputs
from cm_ray.editing.tasks import plan_edit
from cm_ray.networks.formats.reading import load_model, network_digest
from cm_ray.networks.model import Model, save_model, to_uint8
from cm_ray.page.playground import Playground
from cm_ray.tracking.pyfunc_model import _read
from cm_ray.training.specification import model_spec
from tests.data.drawn import ADOBE, chunk, colour_profile, encoded, grey_profile, png
from tests.data.making import make
from tests.tracking.tracked_runs import tiny_spec

LAYERS = np.random.default_rng(0).integers(0, 256, (11, 14, 4), np.uint8)
COLOURS = Image.fromarray(LAYERS[..., :3])
SPRITE = Image.fromarray(LAYERS)
DEEP = LAYERS.astype(int) * 16  # 12 bits in 16
UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6
FILES = {
    "RGB": encoded(COLOURS),
    "L": encoded(COLOURS.convert("L")),
    "1": encoded(COLOURS.convert("1")),
    "P": encoded(COLOURS.quantize(16)),
    "P with alpha": encoded(COLOURS.quantize(16), transparency=bytes(range(0, 256, 16))),
    "P with an index": encoded(COLOURS.quantize(16), transparency=3),
    "RGBA": encoded(SPRITE),
    "LA": encoded(SPRITE.convert("LA")),
    "L with a key": png(LAYERS[..., :1] // 128, 8, key=[1]),
    "RGB with a key": png(LAYERS[..., :3] // 128, 8, key=[1, 0, 1]),
    "4 bits with a key": png(LAYERS[..., :1] // 16, 4, key=[7]),
    "16 bits": png(DEEP[..., :1], 16),
    "16 bits RGB": png(DEEP[..., :3], 16),
    "16 bits RGBA": png(DEEP, 16),
    "16 bits LA": png(DEEP[..., 2:], 16),
    "16 bits with a key": png(DEEP[..., :1] // 2048, 16, key=[1]),
    "transparent": png(LAYERS * [1, 1, 1, 0], 8),
    "JPEG": encoded(COLOURS, "JPEG"),
    "grey JPEG": encoded(COLOURS.convert("L"), "JPEG"),
    "CMYK JPEG": encoded(COLOURS.convert("CMYK"), "JPEG"),
    "progressive JPEG": encoded(COLOURS, "JPEG", progressive=True),
    "turned JPEG": encoded(COLOURS, "JPEG", exif=UPRIGHT),
    "turned PNG": encoded(SPRITE, exif=UPRIGHT),
    "turned WebP": encoded(SPRITE, "WEBP", exif=UPRIGHT),
    "BMP": encoded(COLOURS, "BMP"),
    "WebP": encoded(COLOURS, "WEBP"),
    "animated WebP": encoded(COLOURS, "WEBP", save_all=True, append_images=[SPRITE]),
    "profile": encoded(COLOURS, icc_profile=colour_profile(ADOBE, 2.2)),
    "JPEG with a profile": encoded(COLOURS, "JPEG", icc_profile=colour_profile(ADOBE, 2.2)),
    "grey profile": encoded(COLOURS.convert("L"), icc_profile=grey_profile(1.2)),
    "damaged profile": encoded(COLOURS, icc_profile=b"damaged"),
    "16 bits turned": png(DEEP, 16, chunks=chunk(b"eXIf", UPRIGHT.tobytes()[6:])),
}


def edited(spec, path):
    edit = plan_edit("denoise", spec.diffusion, spec.shape, sigma=0.5)
    return to_uint8(read_inputs(EditRequest(edit=edit, files=(path,), resize=True), spec, 0, 1).given)


def served(spec, path):
    edit = plan_edit("denoise", spec.diffusion, spec.shape, sigma=0.5)
    return _read(pd.DataFrame({"image": [path.read_bytes()]}), spec, edit, True)[0]


def on_page(spec, path):
    return torch.from_numpy(Playground(Model(spec)).opened(path.read_bytes()).transpose(2, 0, 1)[None].copy())


def in_python(spec, path):
    return pixels_of(path, spec, factor=1)[1]


def in_memory(spec, path):
    with Image.open(path) as image:
        return pixels_of(image, spec, factor=1)[1]


def of_pytorch(spec, path):
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        options = {"channels": spec.shape[0], "background": spec.reading.background}
        return cm.load_images([image], size=8, **options).images


DOORS = {
    "edit": edited,
    "served": served,
    "page": on_page,
    "Python, path": in_python,
    "Python, image": in_memory,
    "data set": of_pytorch,
}


@pytest.mark.parametrize(("channels", "background"), [(1, "white"), (3, "#28c850")])
@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_same_pixels_through_every_door(name, channels, background, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(FILES[name])
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.png").write_bytes(FILES[name])
    options = {"size": 8, "channels": channels, "background": background}
    trained = cm.load_images(folder, **options)
    assert trained.shape == (channels, 8, 8)
    assert trained.images.float().std() > 1 or name == "transparent"
    assert trained.reading == Reading(background=background, bits=trained.reading.bits)
    make(open_source(str(folder)), tmp_path / "shards", **options)
    assert torch.equal(torch.from_numpy(load_all(tmp_path / "shards")[0]), trained.images)
    spec = dataclasses.replace(tiny_spec(), shape=trained.shape, reading=trained.reading)
    for door, read in DOORS.items():
        assert torch.equal(read(spec, path), trained.images), door


def test_a_model_keeps_the_reading_of_its_training(tmp_path):
    """White pixels of 12 bits are white in an edit too, though the edited file uses only 10."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "bright.png").write_bytes(png((DEEP[..., :1] > 2000) * 4095, 16))
    (folder / "clear.png").write_bytes(png(np.zeros((11, 14, 2)), 16))
    dark = tmp_path / "dark.png"
    dark.write_bytes(png(np.full((8, 8, 1), 1000), 16))
    images = cm.load_images(folder, size=8, background="black")
    assert images.reading == Reading(background="black", bits=12)
    assert images.describe().endswith(
        "; 1 transparent ones are on black; samples of 12 bits were scaled to 8."
    )
    manifest = make(open_source(str(folder)), tmp_path / "shards", size=8, background="black")
    assert (manifest.reading, manifest.transparent) == (images.reading, 1)
    assert cm.load_images(tmp_path / "shards").reading == images.reading
    spec = model_spec(cm.override(cm.recipes.ct_digits(), {"network.conditional": False}), images)
    assert spec.reading == images.reading
    save_model(tmp_path / "model", spec, Model(spec).network.state_dict())
    kept = load_model(tmp_path / "model").spec
    assert kept.reading == images.reading
    assert (edited(kept, dark) == round(1000 * 255 / 4095)).all()
    digest = network_digest(tmp_path / "model")
    other = dataclasses.replace(spec, reading=Reading())
    save_model(tmp_path / "other", other, load_model(tmp_path / "model").network.state_dict())
    assert network_digest(tmp_path / "other") == digest, "the network makes the same samples"
