"""Folders of classes and the files in them: order, names, endings, links; alike in folders and archives."""

import os

import pytest

from cm_ray.data.layouts.folder import image_files
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.trees import image_bytes, left, opened, plant, seen


@pytest.fixture(params=["folder", "zip"])
def form(request):
    return request.param


def test_numbers_sort_as_numbers(form, tmp_path):
    files = {f"{number}/a.png": number for number in range(12)}
    source = opened(form, tmp_path, files)
    assert source.class_names == tuple(map(str, range(12)))
    assert seen(source) == {number: str(number) for number in range(12)}


def test_zeros_before_numbers_do_not_count(form, tmp_path):
    files = {"007/a.png": 7, "10/a.png": 10, "2/a.png": 2, "0100/a.png": 100}
    assert opened(form, tmp_path, files).class_names == ("2", "007", "10", "0100")


def test_names_sort_as_text_if_one_is_no_number(form, tmp_path):
    files = {"10/a.png": 10, "2/a.png": 2, "b/a.png": 0}
    assert opened(form, tmp_path, files).class_names == ("10", "2", "b")


@pytest.mark.parametrize(
    ("ending", "format"),
    [
        *(("gif", "gif"), ("tif", "tiff"), ("TIFF", "tiff"), ("jfif", "jpeg"), ("avif", "avif")),
        *(("ppm", "ppm"), ("jp2", "jpeg2000"), ("tga", "tga"), ("webp", "webp"), ("JPEG", "jpeg")),
    ],
)
def test_a_class_of_every_ending(form, tmp_path, ending, format):
    pixel = image_bytes(120, format)
    found = seen(opened(form, tmp_path, {f"a/x.{ending}": pixel, "b/y.png": 20}))
    assert list(found.values()) == ["b", "a"]
    assert abs(max(found) - 120) < 8  # some formats lose a little


@pytest.mark.parametrize("format", ["png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm", "avif", "jpeg2000"])
@pytest.mark.parametrize("name", ["a/x", "a/x.unknown", "a/photo.0001", "a/x.jpg_large"])
def test_content_tells_where_the_ending_does_not(form, tmp_path, format, name):
    found = seen(opened(form, tmp_path, {name: image_bytes(120, format), "b/y.png": 20}))
    assert list(found.values()) == ["b", "a"]


def test_what_is_left_out_is_counted_by_ending(form, tmp_path):
    files = {f"a/{number}.png": number for number in range(3)}
    files |= {"a/x.heic": b"x", "a/y.HEIC": b"y", "b/z.txt": "z", "a/0": b"not an image", "b/b.png": 9}
    files |= {"a/hidden/.x.png": 50, "a/sub/deep.csv": "1"}
    source = opened(form, tmp_path, files)
    assert seen(source) == {0: "a", 1: "a", 2: "a", 9: "b"}
    assert left(source) == [
        "2 files ending in .heic: images of a format that is not read",
        "1 files without an ending: not images, by their content",
        "1 files ending in .csv: not images",
        "1 files ending in .txt: not images",
    ]


def test_many_endings_are_summed_up(form, tmp_path):
    files = {f"a.x{number}": b"?" for number in range(20)} | {"b.txt": "1", "c.txt": "2", "a.png": 1}
    source = opened(form, tmp_path, files)
    assert left(source)[0] == "2 files ending in .txt: not images"
    assert left(source)[-1] == "14 files of 14 other endings: not read"


@pytest.mark.parametrize(
    ("name", "data"), [("x.heic", b"x"), ("x.svg", b"<svg/>"), ("x", b"??"), ("x.dat", b"")]
)
def test_a_class_folder_without_a_readable_image(form, tmp_path, name, data):
    files = {"a/a.png": 1, f"b/deep/{name}": data, "b/readme.txt": "x", "c/a.png": 3}
    with pytest.raises(
        UserError, match=r"b holds no image that can be read \(endings: .*set on_bad_image to sk"
    ):
        opened(form, tmp_path, files)
    source = opened(form, tmp_path / "skip", files, on_bad_image="skip")
    assert seen(source) == {1: "a", 3: "c"}
    assert "1 folders (b): they hold no images" in left(source)
    path = str(tmp_path / "skip" / ("set.zip" if form == "zip" else "set"))
    assert load_images(path, on_bad_image="skip").class_names == ("a", "c")
    with pytest.raises(UserError, match="holds no image that can be read"):
        load_images(path)


def test_folders_without_any_image_are_no_classes(form, tmp_path):
    files = {"a/a.png": 1, "b/a.png": 2, "docs/readme.txt": "x", "empty/": "", "__MACOSX/a/._a.png": b"?"}
    source = opened(form, tmp_path, files)
    assert source.class_names == ("a", "b")
    assert "2 folders (docs, empty): they hold no images" in left(source)


def test_nothing_but_other_files(form, tmp_path):
    with pytest.raises(
        UserError, match=r"no images .*; the endings of its files are .heic, .txt; give another"
    ):
        opened(form, tmp_path, {"a/x.heic": b"x", "b/x.txt": "x"})
    with pytest.raises(UserError, match="unpack its archives, or give one that is a zip"):
        opened(form, tmp_path / "zips", {"train.zip": b"PK\3\4", "val.zip": b"PK\3\4"})


def test_deeper_folders_belong_to_their_class_and_the_layout_says_so(form, tmp_path):
    files = {"fish/ray/a.png": 1, "fish/shark/a.png": 2, "trees/oak/a.png": 3}
    source = opened(form, tmp_path, files)
    assert seen(source) == {1: "fish", 2: "fish", 3: "trees"}
    assert source.layout.startswith("image files in class folders, which hold other folders")


@pytest.mark.parametrize(
    "files", [{"x/y/cat/a.png": 1, "x/y/dog/a.png": 2}, {"set/cat/a.png": 1, "set/dog/a.png": 2}]
)
def test_a_common_top_folder_is_no_class(form, tmp_path, files):
    assert seen(opened(form, tmp_path, files)) == {1: "cat", 2: "dog"}


@pytest.mark.parametrize("top", ["images", "IMGS", "set", "images/set", "img_align/img_align"])
def test_a_folder_that_says_nothing_is_no_class(form, tmp_path, top):
    assert seen(opened(form, tmp_path, {f"{top}/a.png": 1, f"{top}/b.png": 2})) == {1: None, 2: None}


def test_one_class_folder(tmp_path):
    assert seen(opened("folder", tmp_path, {"cats/a.png": 1, "cats/b.png": 2})) == {1: "cats", 2: "cats"}


def test_hive_folders_of_images(form, tmp_path):
    files = {"label=10/a.png": 10, "label=2/a.png": 2, "label=golden%20fish/a.png": 3}
    source = opened(form, tmp_path, files)
    assert seen(source) == {2: "2", 3: "golden fish", 10: "10"}
    assert source.layout.startswith("image files in folders label=…")
    del files["label=golden%20fish/a.png"]
    assert opened(form, tmp_path / "numbers", files).class_names == ("2", "10")
    with pytest.raises(UserError, match=r"'label=__HIVE_DEFAULT_PARTITION__' is of images without a label"):
        opened(form, tmp_path / "null", files | {"label=__HIVE_DEFAULT_PARTITION__/a.png": 5})


def test_composed_and_decomposed_names(form, tmp_path):
    assert opened(form, tmp_path, {"cafe\u0301/a.png": 1, "b/a.png": 2}).class_names == ("b", "café")
    with pytest.raises(UserError, match="Two class folders have the name"):
        opened(form, tmp_path / "two", {"cafe\u0301/a.png": 1, "caf\u00e9/a.png": 2})


def test_each_real_folder_is_visited_once(tmp_path):
    root = plant(tmp_path / "set", {"cat/a.png": 1, "cat/b.png": 2, "dog/a.png": 3})
    plant(tmp_path, {"more/a.png": 4, "more/deep/b.png": 5, "beside.png": 99})
    (root / "cat" / "up").symlink_to("..")
    (root / "cat" / "top").symlink_to(tmp_path)
    (root / "dog" / "self").symlink_to(".")
    (root / "kitty").symlink_to("cat")
    (root / "eel").symlink_to(tmp_path / "more")
    (root / "fox").symlink_to(tmp_path / "more" / "deep")
    (tmp_path / "more" / "back").symlink_to(root / "dog")
    source = open_source(str(root))
    assert seen(source) == {1: "cat", 2: "cat", 3: "dog", 4: "eel", 5: "eel"}
    assert "6 links to folders: read already, or a folder above" in left(source)
    assert image_files(root) == ["cat/a.png", "cat/b.png", "dog/a.png", "eel/a.png", "eel/deep/b.png"]


def test_links_to_each_other(tmp_path):
    root = plant(tmp_path / "set", {"a.png": 1})
    plant(tmp_path, {"one/a.png": 2, "two/a.png": 3})
    (tmp_path / "one" / "two").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "one").symlink_to(tmp_path / "one")
    (root / "loop").symlink_to("loop2")
    (root / "b").symlink_to(tmp_path / "one")
    (root / "loop2").symlink_to("loop")
    with pytest.raises(UserError, match=r"loop2? is a link that leads nowhere"):
        open_source(str(root))
    (root / "loop").unlink()
    (root / "loop2").unlink()
    (root / "a.png").rename(root / "b2.png")
    assert image_files(root) == ["b/a.png", "b/two/a.png", "b2.png"]


def test_links_to_splits(tmp_path):
    root = plant(tmp_path / "set", {"all/cat/a.png": 1, "all/dog/a.png": 2, "test/cat/a.png": 3})
    (root / "train").symlink_to("all")
    (root / "latest").symlink_to("train")
    assert seen(open_source(str(root))) == {1: "cat", 2: "dog"}
    assert seen(open_source(str(root), "test")) == {3: "cat"}
    (root / "val").symlink_to("test")
    plant(tmp_path, {"more/cat/a.png": 4, "more/dog/a.png": 5})
    (root / "eval").symlink_to(tmp_path / "more")
    assert seen(open_source(str(root), "val")) == {3: "cat"}
    assert seen(open_source(str(root), "eval")) == {4: "cat", 5: "dog"}
    assert seen(open_source(str(root))) == {1: "cat", 2: "dog"}


def test_links_to_files(tmp_path):
    root = plant(tmp_path / "set", {"a/1.png": 1, "notes.txt": "x"})
    plant(tmp_path, {"store/2": 2})
    (root / "b").mkdir()
    (root / "b" / "2.png").symlink_to(tmp_path / "store" / "2")
    (root / "gone.txt").symlink_to("nowhere")
    assert seen(open_source(str(root))) == {1: "a", 2: "b"}
    (root / "b" / "3.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"b/3.png is a link that leads nowhere .*; remove or mend it"):
        open_source(str(root))


def test_a_pipe_is_not_read(tmp_path):
    root = plant(tmp_path / "set", {"a.png": 1})
    os.mkfifo(root / "b.png")
    assert seen(open_source(str(root))) == {1: None}


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    root = plant(tmp_path / "set", {"a/1.png": 1, "b/1.png": 2})
    scan = os.scandir

    def refused(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"Could not read .*/b \(Permission denied\)"):
        open_source(str(root))
