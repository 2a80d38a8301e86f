"""A survey says what the data is before it is read, and the numbers are those that reading finds."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cm_ray as cm
from cm_ray.data.cached_shards import as_shards
from cm_ray.data.glimpse import glimpse, glimpse_of
from cm_ray.data.interface.outline import rows_between, spread_runs
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.named import cifar10
from cm_ray.data.open_source import open_source
from cm_ray.data.pictures.heads import head_of
from cm_ray.data.shards.shard_writer import recipe_of
from cm_ray.data.take_survey import survey, survey_of_source
from cm_ray.errors import UserError
from tests.data.drawn import encoded
from tests.data.trees import zipped

PNG = encoded(Image.new("RGB", (6, 5)))


def picture(path, size=(16, 12), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, options.pop("colour", 0)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Three cats of two sizes and a grey dog, beside a split, a text and a folder without images."""
    root = tmp_path / "photos"
    picture(root / "train" / "cat" / "a.png")
    picture(root / "train" / "cat" / "b.png", (12, 16))
    picture(root / "train" / "cat" / "c.png", mode="RGBA", colour=(0, 0, 0, 9))
    picture(root / "train" / "dog" / "d.png", mode="L")
    (root / "train" / "dog" / "notes.txt").write_text("a dog")
    picture(root / "test" / "cat" / "e.png")
    return root


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_folder_and_an_archive_say_the_same(form, photos, tmp_path):
    path = photos
    if form == "zip":
        contents = {str(file.relative_to(photos)): file.read_bytes() for file in photos.rglob("*.*")}
        path = zipped(tmp_path / "photos.zip", contents)
    found = survey(path, size=8)
    assert (found.count, found.looked_at) == (4, 4)
    assert found.split == "train"
    assert dict(zip(found.class_names, found.class_counts, strict=True)) == {"cat": 3, "dog": 1}
    assert found.sizes == {"16x12": 3, "12x16": 1}
    assert found.colours == {"RGB": 3, "grey": 1}
    assert found.transparent == 1
    archive = ", in a zip archive" if form == "zip" else ""
    assert str(found).splitlines() == [
        f"photos-train: image files in class folders{archive}, split train",
        "  4 images of 16x12 (3), 12x16 (1), RGB (3), grey (1), 1 with transparent pixels",
        "  2 classes: cat (3), dog (1)",
        "  left out: 1 other split (test) (the split train is read)",
        "  left out: 1 file ending in .txt (not images)",
        "  cropped and resized to 8x8",
    ]
    assert "of several sizes: set size" in str(survey(path))


def test_nothing_is_written_and_no_pixel_is_decoded(photos, monkeypatch):
    monkeypatch.setattr("cm_ray.data.pictures.images.decode", lambda *_: pytest.fail("decoded"))
    before = sorted(photos.rglob("*"))
    survey(photos)
    assert sorted(photos.rglob("*")) == before


def test_images_that_cannot_be_read_are_named(photos):
    broken = photos / "train" / "cat" / "b.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (photos / "train" / "dog" / "empty.png").write_bytes(b"")
    found = survey(photos)
    assert found.looked_at == 5
    assert len(found.damaged) == 2
    assert f"  cannot be read: {broken} is not a readable image" in str(found)
    assert "empty.png" in str(found)


def test_a_photograph_on_its_side_has_the_size_of_the_upright_one(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = picture(tmp_path / "a.jpg", exif=exif.tobytes())
    head = head_of(file.read_bytes(), ReadOptions())
    pixels = load_images(tmp_path).images
    assert head.size == "12x16"
    assert pixels.shape[2:] == (16, 12)


@pytest.mark.parametrize("grey", [True, False])
def test_heads_tell_the_channels_that_decoding_gives(grey, tmp_path):
    modes = ("1", "L", "LA", "I;16") if grey else ("P", "RGB", "RGBA", "CMYK")
    for mode in modes:
        place = tmp_path / mode.replace(";", "")
        picture(place / "a.tif", mode=mode)
        assert head_of((place / "a.tif").read_bytes(), ReadOptions()).grey == grey, mode
        assert load_images(place).shape[0] == (1 if grey else 3), mode


def table(path, labels, *, names=None, rows_per_group=7):
    images = [{"bytes": PNG, "path": None} for number in range(len(labels))]
    columns = {"image": images, "label": pa.array(labels, pa.int64() if names is None else None)}
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def test_parquet_tells_its_labels_without_its_images(tmp_path):
    labels = [number // 400 for number in range(1200)]
    file = table(tmp_path / "sorted.parquet", labels, rows_per_group=100)
    found = survey(file)
    assert found.class_counts == (400, 400, 400)
    assert (found.count, found.looked_at) == (1200, 256)
    assert "1,200 images; 256 of them were looked at: 6x5, RGB" in str(found)
    assert found.class_counts == load_images(file).class_counts


def test_a_row_without_an_image_is_named(tmp_path):
    columns = {"image": [PNG, None], "label": [0, 0]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = survey(tmp_path / "a.parquet")
    assert len(found.damaged) == 1
    assert "row 1 has no image" in found.damaged[0]


def test_arrays_files_of_them_and_named_data_sets(tmp_path, monkeypatch):
    pixels, labels = np.zeros((9, 6, 5, 3), np.uint8), np.array([0, 2] * 4 + [2])
    np.savez(tmp_path / "a.npz", pixels, labels, class_names=np.array(["ant", "bee", "cat"]))
    for found in (survey(tmp_path / "a.npz"), survey((pixels, labels))):
        assert found.class_counts == (4, 0, 5)
        assert found.sizes == {"5x6": 9}
    assert survey(tmp_path / "a.npz").class_names == ("ant", "bee", "cat")
    assert "where no image is of bee" in str(survey(tmp_path / "a.npz"))
    assert survey("digits").class_counts == load_images("digits").class_counts
    monkeypatch.setattr(cifar10, "download", lambda *_, **__: pytest.fail("downloaded"))
    assert survey("cifar10", split="test").class_counts == (1000,) * 10
    with pytest.raises(UserError, match="known when it is read; give a path or arrays"):
        survey([Image.new("L", (3, 3))])


def test_shards_keep_what_was_understood(photos, tmp_path):
    folder = as_shards(load_images(photos, size=8), cache=tmp_path / "cache")
    assert "4 images of 8x8, RGB" in str(survey(folder))
    source = open_source(str(photos))
    assert recipe_of(source, 10, ReadOptions(size=8)) == recipe_of(
        open_source(str(photos), "train"), 10, ReadOptions(size=8, split="train")
    ), "a split by its name is the one that is read without"
    lines = survey_of_source(source, ReadOptions(size=8)).lines()
    manifest = json.loads((tmp_path / "cache").joinpath(folder, "manifest.json").read_text())
    assert manifest["survey"] == [], "of images in memory"
    manifest["survey"] = lines
    (tmp_path / "cache").joinpath(folder, "manifest.json").write_text(json.dumps(manifest))
    said = str(survey(folder))
    assert "  made of photos-train: image files in class folders, split train" in said
    assert "left out: 1 file ending in .txt" in said
    with pytest.raises(UserError, match="shards, which have no split 'test'"):
        survey(folder, split="test")


@pytest.mark.parametrize("count", [1, 255, 256, 257, 300, 10**6])
def test_the_images_looked_at_are_spread(count):
    runs = spread_runs(count)
    assert runs[0][0] == 0
    assert runs[-1][1] == count
    places = [row for start, stop in runs for row in range(start, stop)]
    assert len(places) == min(count, 256)
    assert max(places) < count
    if count > 300:
        assert max(np.diff([start for start, _ in runs])) <= count / 15 + 1


def test_rows_of_several_files():
    files = [("a", 3), ("b", 4), ("c", 2)]
    assert list(rows_between(files, 2, 8)) == [("a", 2, 3), ("b", 0, 4), ("c", 0, 1)]
    assert list(rows_between(files, 3, 7)) == [("b", 0, 4)]


def test_a_split_is_a_setting_of_every_reader(photos):
    assert survey(photos, split="test").count == 1
    assert load_images(photos, size=8, split="test").count == 1
    with pytest.raises(UserError, match="no split 'val'"):
        survey(photos, split="val")


def test_a_glimpse_of_sorted_data_has_all_classes(tmp_path):
    """Black images of class 0 come first, then white ones: their spread is that of both."""
    pixels = np.repeat(np.array([0, 255], np.uint8), 3000)[:, None, None, None]
    np.savez(tmp_path / "sorted.npz", np.broadcast_to(pixels, (6000, 4, 4, 3)), np.repeat([0, 1], 3000))
    seen = glimpse(tmp_path / "sorted.npz")
    assert len(seen.block) == 16 * 64
    assert float(seen.block.float().mean()) == pytest.approx(127.5, abs=20)
    assert seen.class_names == ("0", "1")


@pytest.mark.parametrize("content", ['{"name": "my app", "icons": []}', "[]", "{", '{"format": 1}'])
def test_a_manifest_of_something_else_makes_no_shards(content, photos):
    for folder in (photos, photos / "train"):
        (folder / "manifest.json").write_text(content)
    assert survey(photos).count == 4
    assert load_images(photos, size=8).count == 4


def test_the_front_door_has_it():
    assert cm.survey is survey
    assert isinstance(cm.survey("digits"), cm.Survey)


def test_a_glimpse_knows_classes_that_it_does_not_see(tmp_path):
    labels = np.zeros(6000, np.int64)
    labels[200] = 7
    np.savez(tmp_path / "x.npz", np.zeros((6000, 4, 4, 3), np.uint8), labels)
    assert glimpse(tmp_path / "x.npz").class_names == tuple("01234567")


def test_training_on_sorted_images_in_memory_knows_the_spread_of_all(monkeypatch):
    """Black images of class 0 come first, then white ones."""
    pixels = np.repeat(np.array([0, 255], np.uint8), 30_000)[:, None, None, None]
    data = np.broadcast_to(pixels, (60_000, 8, 8, 1)), np.repeat([0, 1], 30_000)
    begun = []

    def trainer(recipe, *arguments, **options):
        begun.append(recipe)
        raise UserError("stopped here")

    monkeypatch.setattr("cm_ray.api.train.Trainer", trainer)
    with pytest.raises(UserError, match="stopped here"):
        cm.train("ict", data)
    assert begun[0].column.sigma_data == pytest.approx(1, abs=0.01)
    few = load_images((data[0][:3], data[1][:3]))
    assert len(glimpse_of(few).block) == 3


def test_a_table_beside_the_folder_of_images_is_named_if_nothing_else_gives_labels(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "set" / "images" / f"{name}.png")
    (tmp_path / "set" / "labels.csv").write_text("file,label\na.png,0\nb.png,1\n")
    (tmp_path / "set" / "README.md").write_text("read me")
    left = [each for each in survey(tmp_path / "set").left_out if "table" in each.what]
    assert [(each.count, each.what, each.why) for each in left] == [
        (1, "table beside the folder of images (labels.csv)", "not read as labels")
    ]
    (tmp_path / "set" / "labels.csv").rename(tmp_path / "set" / "notes.md")
    assert not any("table" in each.what for each in survey(tmp_path / "set").left_out)
