"""Tar archives as data: image files as in a folder, and samples as WebDataset writes them."""

import gzip
import json
import tarfile

import pytest

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.take_survey import take_survey
from cm_ray.errors import UserError
from tests.data.trees import image_bytes, left, plant, seen, tarred

CLASSES = {f"{name}/{i}.png": 10 * n + i for n, name in enumerate(("cat", "dog")) for i in range(4)}


def samples(numbers, **fields):
    """Samples of a number each; a field is a function of the number, or a text."""
    found = {}
    for number in numbers:
        found[f"{number:06d}.png"] = number
        for name, value in fields.items():
            found[f"{number:06d}.{name.replace('__', '.')}"] = value(number) if callable(value) else value
    return found


def opened(path, split="", **options):
    return open_source(str(path), split, options=ReadOptions(**options))


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_the_same_images_as_the_folder(tmp_path, format):
    long = {f"dog/{'long/' * 15}{'name' * 20}.png": 99}
    folder = load_images(plant(tmp_path / "set", CLASSES | long))
    archive = load_images(tarred(tmp_path / "set.tar", CLASSES | long, format))
    assert folder.fingerprint == archive.fingerprint
    assert archive.class_names == ("cat", "dog")
    source = open_source(str(tmp_path / "set.tar"))
    assert source.layout == "image files in class folders, which hold other folders, in a tar archive"
    assert [len(part.members) for part in source.parts(4)] == [4, 4, 1]


def test_identity_follows_the_content(tmp_path):
    path, other = tmp_path / "a" / "set.tar", tmp_path / "b" / "set.tar"
    tarred(path, CLASSES), tarred(other, CLASSES | {"dog/3.png": 77})
    assert path.stat().st_size == other.stat().st_size
    assert open_source(str(path)).identity() != open_source(str(other)).identity()
    tarred(other, CLASSES)
    assert open_source(str(path)).identity() == open_source(str(other)).identity()


def test_numbers_of_classes_in_cls(tmp_path):
    path = tarred(tmp_path / "set.tar", samples(range(5), cls=lambda number: f"{number % 3}\n"))
    source = opened(path)
    assert seen(source) == {0: 0, 1: 1, 2: 2, 3: 0, 4: 1}
    assert source.layout == "a WebDataset archive with labels in 'cls'"
    assert (source.class_names, source.left_out) == ((), ())
    assert take_survey(str(path), ReadOptions()).class_names == ("0", "1", "2")


def test_names_of_classes_and_captions(tmp_path):
    words = ("wren", "owl")
    files = samples(range(4), cls=lambda number: words[number % 2], txt="a bird")
    source = opened(tarred(tmp_path / "set.tar", files))
    assert seen(source) == {0: "wren", 1: "owl", 2: "wren", 3: "owl"}
    assert source.class_names == ("owl", "wren")
    assert left(source) == ["4 files ending in .txt: fields that are not read"]


def said(number):
    return json.dumps(
        {"label": number % 2, "caption": "a bird", "kind": "ab"[number % 2], "key": str(number)}
    )


def test_labels_in_json(tmp_path):
    path = tarred(tmp_path / "set.tar", samples(range(4), json=said))
    assert seen(opened(path)) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert seen(opened(path, label_column="kind")) == {0: "a", 1: "b", 2: "a", 3: "b"}
    assert seen(opened(path, label_column="none")) == dict.fromkeys(range(4))
    with pytest.raises(UserError, match=r"has no field 'breed', which data.label_column names"):
        opened(path, label_column="breed")
    both = tarred(tmp_path / "both.tar", samples(range(4), json=said, cls=lambda number: str(3 - number)))
    assert seen(opened(both)) == {0: 3, 1: 2, 2: 1, 3: 0}, "cls is the label"
    assert seen(opened(both, label_column="label")) == {0: 0, 1: 1, 2: 0, 3: 1}


def test_formats_of_images_are_one_field_and_masks_another(tmp_path):
    files = {"a.jpg": image_bytes(8, "jpeg"), "a.cls": "0", "b.webp": image_bytes(16, "webp"), "b.cls": "1"}
    masks = {"a.mask.png": 100, "b.mask.png": 200}
    path = tarred(tmp_path / "set.tar", files | masks)
    assert seen(opened(path)) == {8: 0, 16: 1}
    assert left(opened(path)) == ["2 files ending in .mask.png: fields that are not read"]
    assert seen(opened(path, image_column="mask.png")) == {100: 0, 200: 1}
    with pytest.raises(UserError, match=r"b.png is the second image of the sample 'b'; give images of diff"):
        opened(tarred(tmp_path / "two.tar", files | {"b.png": 3}))


def test_archives_of_a_folder_are_one_data_set_in_their_order(tmp_path):
    for number in range(3):
        tarred(
            tmp_path / "set" / f"part-{number:04d}.tar", samples(range(3 * number, 3 * number + 3), cls="7")
        )
    source = opened(tmp_path / "set")
    assert seen(source, rows=4) == dict.fromkeys(range(9), 7)
    assert [row.image.name for row in source.rows] == [f"{number:06d}.png" for number in range(9)]
    assert [len(part.rows) for part in source.parts(4)] == [4, 4, 1]
    assert source.layout == "3 WebDataset archives with labels in 'cls'"


def test_archives_of_splits(tmp_path):
    for place, (split, first) in enumerate({"train": 0, "val": 10}.items()):
        for number in range(2):
            numbers = range(first + 2 * number, first + 2 * number + 2)
            tarred(tmp_path / "set" / f"{split}-{number:05d}.tar", samples(numbers, cls=str(place)))
            tarred(tmp_path / "folders" / split / f"{number:05d}.tar", samples(numbers, cls=str(place)))
    for form in ("set", "folders"):
        assert seen(opened(tmp_path / form)) == dict.fromkeys(range(4), 0)
        assert seen(opened(tmp_path / form, "validation")) == dict.fromkeys(range(10, 14), 1)
        with pytest.raises(UserError, match="has no split 'banana'"):
            opened(tmp_path / form, "banana")
    assert left(opened(tmp_path / "set")) == ["1 other split (val): the split train is read"]


def test_what_a_sample_lacks(tmp_path):
    files = samples(range(3), cls="4")
    del files["000001.cls"]
    path = tarred(tmp_path / "set.tar", {**files, "000009.cls": "4"})
    assert left(opened(path)) == ["1 samples: they have no image"]
    with pytest.raises(UserError, match=r"000001.png .*label.*on_bad_image to skip"):
        seen(opened(path))
    assert seen(opened(path), on_bad_image="skip") == {0: 4, 2: 4}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"cls": lambda number: ["1", "cat"][number % 2]},
            "has the number 1 as 'cls' of a sample, and others",
        ),
        ({"cls": b"\xff\xfe"}, r"000000.cls is no text"),
        ({"json": "[1, 2]"}, "must hold names with values, not list"),
        ({"json": '{"label": [1]}'}, "has list as 'label' of the sample '000000'"),
        ({"json": '{"label": '}, "000000.json"),
        ({"json": '{"target": 1, "class": 2}'}, r"several fields of labels \(target, class\)"),
    ],
)
def test_labels_that_are_refused(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        opened(tarred(tmp_path / "set.tar", samples(range(2), **fields)))


def rewritten(path, data):
    path.write_bytes(data)
    return path


def test_damage(tmp_path):
    path = tarred(tmp_path / "set.tar", samples(range(20), cls="1"))
    whole = path.read_bytes()
    last = whole.rindex(b"000019.cls")
    for cut in (100, 1000, last, last + 512):
        with pytest.raises(UserError, match=r"set.tar is not a whole tar archive \("):
            opened(rewritten(path, whole[:cut]))
    damaged = whole[:last] + b"\x07" * 512 + whole[last + 512 :]
    with pytest.raises(UserError, match="is not a whole tar archive"):
        opened(rewritten(path, damaged))
    with pytest.raises(UserError, match="there is something behind its last file"):
        opened(rewritten(path, whole + whole))
    with pytest.raises(UserError, match=r"set.tar is .*page"):
        opened(rewritten(path, b"<!DOCTYPE html><html><body>Not found</body></html>"))


def test_compressed_archives_and_links_are_refused(tmp_path):
    path = tarred(tmp_path / "set.tar", CLASSES)
    packed = rewritten(tmp_path / "set.tar.gz", gzip.compress(path.read_bytes()))
    renamed = rewritten(tmp_path / "renamed.tar", packed.read_bytes())
    for each in (packed, renamed):
        with pytest.raises(UserError, match="is compressed by gzip; decompress it, or unpack it"):
            opened(each)
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        link = tarfile.TarInfo("cat/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match=r"cat/1.png in .* is a link; unpack the archive"):
        opened(tmp_path / "links.tar")
    with pytest.raises(UserError, match="holds a file whose name leads out of its folder"):
        opened(tarred(tmp_path / "out.tar", {"../a.png": 1}))


def test_an_archive_beside_images_is_left_out(tmp_path):
    folder = plant(tmp_path / "set", CLASSES)
    tarred(folder / "cat" / "backup.tar", CLASSES)
    source = opened(folder)
    assert len(seen(source)) == 8
    assert left(source) == ["1 files ending in .tar: archives beside images are not unpacked"]


def test_several_archives_of_folders_are_refused(tmp_path):
    """Their folders may be classes, which nobody could tell from the names of samples."""
    for number in range(2):
        tarred(
            tmp_path / "set" / f"part-{number}.tar",
            {f"{key}-{number}.png": n for key, n in (("cat/a", 1), ("dog/b", 2))},
        )
    with pytest.raises(UserError, match=r"its images lie in several folders.*unpack"):
        opened(tmp_path / "set")
    tarred(tmp_path / "plain" / "part-0.tar", {"a.png": 1, "b.png": 2})
    assert seen(opened(tmp_path / "plain")) == {1: None, 2: None}
