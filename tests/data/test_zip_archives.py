"""Zip archives as data: what is read of them in parts, and what is refused."""

import io
import struct
import zipfile

import pytest
from PIL import Image

from cm_ray.data.layouts import archive_tree
from cm_ray.data.layouts.zip_archive import ZipArchive
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.trees import image_bytes, left, plant, seen, zipped

CLASSES = {f"{name}/{i}.png": 10 * n + i for n, name in enumerate(("cat", "dog")) for i in range(4)}


def test_the_same_images_as_the_folder(tmp_path):
    folder = plant(tmp_path / "set", CLASSES)
    archive = zipped(tmp_path / "set.zip", CLASSES)
    from_folder, from_archive = load_images(folder), load_images(archive)
    assert from_folder.fingerprint == from_archive.fingerprint
    assert (from_folder.images == from_archive.images).all()
    assert from_folder.class_names == from_archive.class_names == ("cat", "dog")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_part_reads_its_own_members(tmp_path, compression):
    source = open_source(str(zipped(tmp_path / "set.zip", CLASSES, compression)))
    assert [len(part.members) for part in source.parts(3)] == [3, 3, 2]
    assert seen(source, rows=3) == {number: path.split("/")[0] for path, number in CLASSES.items()}
    assert (source.layout, source.name) == ("image files in class folders, in a zip archive", "set")


def test_names_as_other_programs_write_them(tmp_path):
    files = {"./cat//a.png": 1, "dog\\a.png": 2, "/eel/a.png": 3}
    assert seen(open_source(str(zipped(tmp_path / "set.zip", files)))) == {1: "cat", 2: "dog", 3: "eel"}


def test_the_last_of_several_members_of_a_name(tmp_path):
    path = zipped(tmp_path / "set.zip", {"a.png": 1, "b.png": 2})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.png", image_bytes(3))
    assert list(seen(open_source(str(path)))) == [2, 3]


def test_an_archive_behind_another_file(tmp_path):
    path = zipped(tmp_path / "set.zip", {"a.png": 1})
    path.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    assert seen(open_source(str(path))) == {1: None}


def test_content_tells_an_archive_without_an_ending(tmp_path):
    path = zipped(tmp_path / "set.zip", CLASSES).rename(tmp_path / "blob")
    assert len(seen(open_source(str(path)))) == 8


def test_an_archive_of_archives_or_tables(tmp_path):
    inner = zipped(tmp_path / "inner.zip", CLASSES).read_bytes()
    with pytest.raises(UserError, match=r"holds no images that can be read.*; unpack its archives"):
        open_source(str(zipped(tmp_path / "outer.zip", {"a/inner.zip": inner})))
    with pytest.raises(UserError, match="holds tables; unpack the archive and give the folder"):
        open_source(str(zipped(tmp_path / "tables.zip", {"data/train.parquet": b"PAR1"})))
    source = open_source(str(zipped(tmp_path / "both.zip", CLASSES | {"cat/inner.zip": inner})))
    assert left(source) == ["1 files ending in .zip: archives beside images are not unpacked"]
    assert len(seen(source)) == 8


def changed(path, **fields):
    """Change fields of the first entry in the directory of an archive."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    offsets = {"flags": ("<H", 8), "method": ("<H", 10), "crc": ("<I", 16), "packed": ("<I", 20)}
    for name, value in fields.items():
        form, offset = (offsets | {"size": ("<I", 24), "start": ("<I", 42)})[name]
        struct.pack_into(form, data, at + offset, value)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flags": 1}, "a.png in .*set.zip is encrypted; unpack the archive and give the folder"),
        ({"method": 12}, "a.png in .* is packed neither by deflate nor not at all; write the archive again"),
        ({"method": 99}, "is packed neither by deflate"),
        ({"size": 2**31}, "a.png claims more bytes than it can hold"),
        ({"start": 5}, "is not a whole zip archive|lies over"),
    ],
)
def test_refused_when_it_is_opened(tmp_path, fields, message):
    path = zipped(tmp_path / "set.zip", {"a.png": 1, "b.png": 2})
    with pytest.raises(UserError, match=message) as raised:
        seen(open_source(changed(path, **fields)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fields", [{"crc": 1}, {"size": 30}, {"size": 5000}, {"packed": 10}])
def test_refused_when_it_is_read(tmp_path, fields):
    source = open_source(changed(zipped(tmp_path / "set.zip", {"a.png": 1}), **fields))
    for how in ("raise", "skip"):  # a damaged archive is no bad image
        with pytest.raises(
            UserError, match=r"set.zip is not a whole zip archive .*; fetch or write it again"
        ):
            seen(source, on_bad_image=how)


@pytest.mark.parametrize("cut", [1, 30, 200, 600])
def test_cut_off(tmp_path, cut):
    path = zipped(tmp_path / "set.zip", CLASSES)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match="is not a whole zip archive"):
        open_source(str(path))


def test_bytes_changed_in_the_middle(tmp_path):
    path = zipped(tmp_path / "set.zip", CLASSES)
    data = bytearray(path.read_bytes())
    for place in range(40, 80):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not a whole zip archive"):
        seen(open_source(str(path)))


def test_a_vanished_archive_is_not_skipped(tmp_path):
    path = zipped(tmp_path / "set.zip", CLASSES)
    source = open_source(str(path))
    path.unlink()
    with pytest.raises(UserError, match=r"Could not read .*every machine must be able to read it"):
        seen(source, on_bad_image="skip")


def test_members_that_share_bytes(tmp_path):
    """An archive of overlapping members (Fifield 2019) would give many times its own size."""
    path = zipped(tmp_path / "set.zip", {"a.png": 1, "b.png": 2})
    with zipfile.ZipFile(path) as archive:
        second = archive.infolist()[1]
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    assert struct.unpack_from("<I", data, at + 42)[0] == second.header_offset
    struct.pack_into("<I", data, at + 42, 0)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"not a whole zip archive \(.* lies over"):
        open_source(str(path))


def test_a_member_that_would_fill_the_memory(tmp_path, monkeypatch):
    path = zipped(tmp_path / "set.zip", {"a.png": 1, "bomb.png": bytes(5 << 20)})
    assert path.stat().st_size < 1 << 14
    monkeypatch.setattr(archive_tree, "MOST_MEMBER_BYTES", 4 << 20)
    with pytest.raises(UserError, match=r"bomb.png in .*set.zip has more than 4 MiB; leave it out"):
        seen(open_source(str(path)), on_bad_image="skip")


def test_folders_that_lie_too_deep(tmp_path):
    with pytest.raises(UserError, match="its folders lie more than 100 deep"):
        open_source(str(zipped(tmp_path / "set.zip", {"a/" * 30_000 + "x.png": 1})))


def test_a_file_that_is_a_folder_too(tmp_path):
    with pytest.raises(UserError, match="a is a file and a folder"):
        open_source(str(zipped(tmp_path / "set.zip", {"a": 1, "a/b.png": 2})))
    with pytest.raises(UserError, match="a is a file and a folder"):
        open_source(str(zipped(tmp_path / "set.zip", {"a/b.png": 2, "a": 1})))


def test_content_is_told_from_the_beginning_of_a_member(tmp_path):
    noise = Image.effect_noise((300, 300), 90)
    buffer = io.BytesIO()
    noise.save(buffer, "png")
    path = zipped(tmp_path / "set.zip", {"picture": buffer.getvalue(), "text": "x" * 10**6})
    archive = ZipArchive(path)
    assert archive.read("picture", 16) == buffer.getvalue()[:16]
    assert archive.read("text", 16) == b"x" * 16
    assert archive.read("text", 2 * 10**6) == b"x" * 10**6


def test_identity_follows_the_content(tmp_path):
    first = open_source(str(zipped(tmp_path / "a" / "set.zip", CLASSES))).identity()
    assert open_source(str(zipped(tmp_path / "b" / "set.zip", CLASSES))).identity() == first
    other = CLASSES | {"cat/0.png": 99}
    assert open_source(str(zipped(tmp_path / "c" / "set.zip", other))).identity() != first


@pytest.mark.parametrize("name", ["../b/2.png", "a/../b/2.png", "..\\b\\2.png", "/../../2.png"])
def test_a_name_that_leads_out_is_not_left_out_in_silence(tmp_path, name):
    path = zipped(tmp_path / "set.zip", {"a/1.png": 1, name: 2, "c/3.png": 3})
    with pytest.raises(UserError, match=r"whose name leads out of its folder, .*2.png'; write the archive"):
        open_source(str(path))
