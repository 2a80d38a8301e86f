"""Formats of image files: those that Pillow decodes by itself, and no other."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.interface.reading import Reading
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.pictures import flattening, images
from cm_ray.data.pictures.image_formats import READABLE_ENDINGS, READABLE_FORMATS, SIGNATURE_BYTES, format_of
from cm_ray.data.pictures.images import decode, picture_pixels
from cm_ray.data.pictures.uploads import open_upload

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
EXACT = {"PNG", "GIF", "BMP", "TIFF", "PPM", "QOI", "DDS", "SGI", "PCX", "TGA", "WEBP", "JPEG2000"}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(14) + b"\x01\x00\x09\x00\x00\x03" + bytes(40)
OTHERS = {
    "eps": EPS,
    "wmf": WMF,
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "pdf": b"%PDF-1.4\n" + bytes(64),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "xpm": b'/* XPM */\nstatic char *x[] = {\n"1 1 1 1",\n"a c #ff0000",\n"a"\n};\n',
    "web page": b"<!DOCTYPE html><html></html>",
    "Python": b"Python is a programming language",
    "nothing": b"",
}


def encoded(form, pixels=PIXELS):
    image = Image.fromarray(pixels)
    if form == "GIF":
        image = image.quantize(256)
    stream = io.BytesIO()
    image.save(stream, form, **({"lossless": True} if form == "WEBP" else {}))
    return stream.getvalue()


@pytest.mark.parametrize("form", READABLE_FORMATS)
def test_every_format_is_read_and_known_by_its_signature(form):
    data = encoded(form)
    read = decode(data, ReadOptions()).pixels
    assert read.shape == PIXELS.shape
    if form in EXACT:
        assert np.array_equal(read, PIXELS)
    assert format_of(data[:SIGNATURE_BYTES]) == ("" if form == "TGA" else form)
    assert np.array_equal(np.asarray(open_upload(data, "it", Reading())), read), "uploads are read alike"


def test_the_endings_are_those_that_pillow_registers_for_the_formats():
    Image.init()
    known = {ending for ending, form in Image.registered_extensions().items() if form in READABLE_FORMATS}
    assert set(READABLE_ENDINGS) == known | {".dib", ".mpo"}  # files of BMP and JPEG by other names


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_the_first_frame_is_taken(form):
    colours = [(220, 20, 60), (20, 220, 60), (20, 60, 220)]
    first, *others = (Image.new("RGB", (16, 16), colour) for colour in colours)
    stream = io.BytesIO()
    first.save(stream, form, save_all=True, append_images=others)
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        assert image.n_frames == 3
    found = decode(stream.getvalue(), ReadOptions()).pixels
    assert np.abs(found.astype(int) - colours[0]).max() <= 4


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "RGBX", "CMYK", "P", "1", "L"])
def test_images_in_memory_of_any_mode(mode):
    smooth = Image.fromarray(PIXELS[:2, :2]).resize((16, 12), Image.Resampling.BICUBIC)
    image = smooth.convert(mode)
    found = picture_pixels(image, ReadOptions()).pixels
    if mode in ("1", "L"):
        assert np.array_equal(found[..., 0], np.asarray(image.convert("L")))
    else:
        wanted = image.convert("RGB") if mode == "P" else smooth
        assert np.abs(found.astype(int) - np.asarray(wanted)).max() <= 6


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_not_read_and_starts_no_program(name, monkeypatch, tmp_path):
    ran = tmp_path / "ran"
    for program in ("gs", "gswin64c", "convert", "djpeg"):
        file = tmp_path / program
        file.write_text(f"#!/bin/sh\ntouch {ran}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def no_process(*arguments, **options):
        raise AssertionError(f"a process was to be started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setattr("os.system", no_process)
    monkeypatch.setattr("os.posix_spawn", no_process)
    with pytest.raises(BadImageError, match=r"of another kind|empty file|a web page"):
        decode(OTHERS[name], ReadOptions())
    assert format_of(OTHERS[name][:SIGNATURE_BYTES]) == ""
    assert not ran.exists()


def test_pillow_would_start_a_program_for_the_eps(monkeypatch):
    """The EPS of these tests is one that Pillow passes on to Ghostscript where it may."""
    calls = []
    monkeypatch.setattr(subprocess, "check_call", lambda command, **_: calls.append(command[0]))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    monkeypatch.setattr(images, "READABLE_FORMATS", ("EPS",))
    monkeypatch.setattr(flattening, "READABLE_FORMATS", ("EPS",))
    with pytest.raises(BadImageError):
        decode(EPS, ReadOptions())
    assert calls == ["gs"]
