"""Images in memory: the same images give the same pixels, labels, names and fingerprint in every form."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.shard_writer import make_part, merge, recipe_of
from cm_ray.data.source import ReadOptions
from cm_ray.errors import UserError

DIGITS = tuple("0123456789")


class Pictures(Dataset):
    """Items as torchvision has them."""

    def __init__(self, images, labels=None, classes=None, form=lambda image: image):
        self.images, self.labels, self.form = images, labels, form
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.form(self.images[index])
        return image if self.labels is None else (image, self.labels[index])


@pytest.fixture(scope="module")
def digits():
    """All 1,797 digits: uint8 (n, 8, 8, 1) and labels (n,)."""
    (part,) = open_source("digits").parts(2000)
    batches = list(part.read(ReadOptions()))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture(scope="module")
def known():
    return load_images("digits")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="png")
    return buffer.getvalue()


def as_folder(images, labels, path):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (path / str(label)).mkdir(parents=True, exist_ok=True)
        (path / str(label) / f"{index:05d}.png").write_bytes(png(image))
    return path


def as_npz(images, labels, path):
    np.savez(path.with_suffix(".npz"), images, labels)
    return str(path.with_suffix(".npz"))


def as_parquet(images, labels, path):
    features = {"label": {"names": list(DIGITS), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": [{"bytes": png(image), "path": None} for image in images], "label": labels})
    pq.write_table(table.replace_schema_metadata(metadata), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_shard_folder(images, labels, path):
    source = open_source(as_npz(images, labels, path))
    recipe = recipe_of(source, 500, 0)
    parts = enumerate(source.parts(500))
    made = [make_part(part, path, index, recipe, ReadOptions()) for index, part in parts]
    merge(source, recipe, made).save(path)
    return str(path)


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def picture(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def as_tensors(image):
    """As torchvision's ToTensor and Normalize(0.5, 0.5) make them."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255 * 2 - 1


FORMS = {
    "folder": as_folder,
    "npz": as_npz,
    "parquet": as_parquet,
    "shards": as_shard_folder,
    "tensor": lambda x, y, _: (nchw(x), torch.from_numpy(y)),
    "NHWC array, labels in a list": lambda x, y, _: (x, y.tolist()),
    "grey array": lambda x, y, _: (x[..., 0], y.astype(np.int16)),
    "floats in [-1, 1]": lambda x, y, _: (nchw(x).float() / 127.5 - 1, torch.from_numpy(y)),
    "floats in [0, 1]": lambda x, y, _: (x.astype(np.float64) / 255, y),
    "halves": lambda x, y, _: ((nchw(x).float() / 255).half(), y),
    "Dataset of PIL": lambda x, y, _: Pictures(x, y.tolist(), list(DIGITS), picture),
    "Dataset of tensors": lambda x, y, _: Pictures(x, torch.from_numpy(y), form=as_tensors),
    "Dataset of arrays": lambda x, y, _: Pictures(x, y),
    "TensorDataset": lambda x, y, _: TensorDataset(nchw(x), torch.from_numpy(y)),
    "list": lambda x, y, _: [(picture(a), int(b)) for a, b in zip(x, y, strict=True)],
    "ImageSet": lambda x, y, _: load_images((x, y)),
}


def in_one_order(images: ImageSet):
    rows = zip(images.images.numpy(), images.labels.tolist(), strict=True)
    return sorted((label, image.tobytes()) for image, label in rows)


def check_equal(found: ImageSet, known: ImageSet, *, ordered=True):
    assert (found.images.dtype, found.labels.dtype) == (torch.uint8, torch.int64)
    assert found.images.is_contiguous()
    if ordered:
        assert torch.equal(found.images, known.images)
        assert torch.equal(found.labels, known.labels)
    else:
        assert in_one_order(found) == in_one_order(known)
    assert found.class_names == known.class_names == DIGITS
    assert found.fingerprint == known.fingerprint


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form, digits, known, tmp_path):
    found = load_images(FORMS[form](*digits, tmp_path / "data"))
    check_equal(found, known, ordered=form != "folder")  # a folder comes in a shuffle of its own
    assert found.describe() == "1,797 images of 8x8, grey, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9."


def test_digits_are_what_they_are(digits, known):
    np.testing.assert_array_equal(known.images.numpy(), digits[0].transpose(0, 3, 1, 2))
    assert known.labels.tolist() == digits[1].tolist()
    assert (known.count, len(known), known.shape, known.classes) == (1797, 1797, (1, 8, 8), 10)
    assert known.source == "digits"
    assert known.fingerprint.startswith("25a99109e18df8e3")


def test_loading_needs_no_ray(tmp_path):
    import subprocess

    code = "import sys; from cm_ray.data.load_images import load_images; load_images('digits'); "
    code += "sys.exit(any(name in sys.modules for name in ('ray', 'mlflow', 'matplotlib', 'torchvision')))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.parametrize(
    "form", ["folder", "npz", "tensor", "Dataset of PIL", "Dataset of tensors", "ImageSet"]
)
def test_all_forms_are_resized_alike(form, digits, tmp_path):
    images, labels = digits[0][:50], digits[1][:50]
    wide = np.concatenate([images, images // 2], axis=2)  # 8 x 16: the centre is cropped
    found = load_images(FORMS[form](wide, labels, tmp_path / "data"), size=6)
    expected = load_images((wide, labels), size=6)
    assert found.shape == (1, 6, 6)
    assert in_one_order(found) == in_one_order(expected)
    assert found.fingerprint == expected.fingerprint
    one = Image.fromarray(wide[0, :, 4:12, 0]).resize((6, 6), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(expected.images[0, 0].numpy(), np.asarray(one))


def test_shards_of_another_size(digits, tmp_path, known):
    shards = as_shard_folder(*digits, tmp_path / "data")
    check_equal(load_images(shards, size=8), known)
    with pytest.raises(UserError, match=r"holds shards of 8x8 images, not of size 16; make shards"):
        load_images(shards, size=16)


def test_images_in_memory_are_not_read_again(known):
    assert load_images(known) is known
    assert load_images(known, size=8) is known
    assert load_images(known, size=4).shape == (1, 4, 4)


def test_colour_and_grey_become_colour():
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    pictures = [Image.fromarray(one) for one in colours]
    pictures[1] = pictures[1].convert("L")
    found = load_images(pictures)
    assert found.shape == (3, 4, 5)
    np.testing.assert_array_equal(found.images[0].numpy(), colours[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(found.images[1, 2].numpy(), np.asarray(pictures[1]))


def test_without_labels():
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 5, 3), np.uint8)
    for data in (images, torch.from_numpy(images), (images, None), [images[0]], Pictures(images)):
        found = load_images(data)
        assert (found.labels.tolist(), found.class_names) == ([-1], ())
        assert found.describe() == "1 image of 5x9, RGB, without labels."


def test_names_of_classes():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    animals = Pictures(images, [0, 1, 2, 1], ["cat", "dog", ("great white", "shark")])
    assert load_images(animals).class_names == ("cat", "dog", "great white, shark")
    assert load_images(Subset(animals, [0, 3])).class_names == ("cat", "dog", "great white, shark")
    many = load_images((images, [0, 1, 11, 2]))
    assert many.class_names == tuple(map(str, range(12)))
    assert many.describe() == "4 images of 8x8, RGB, 12 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …."


def test_order_changes_neither_names_nor_fingerprint(digits, known):
    order = np.random.default_rng(0).permutation(1797)
    assert load_images((digits[0][order], digits[1][order])).fingerprint == known.fingerprint
    assert load_images((digits[0], digits[1][order])).fingerprint != known.fingerprint


def test_unreadable_files_are_skipped_if_wanted(digits, tmp_path):
    folder = as_folder(digits[0][:5], digits[1][:5], tmp_path / "data")
    next(folder.glob("*/*.png")).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"png is not a readable image .*set on_bad_image to skip"):
        load_images(folder)
    found = load_images(folder, on_bad_image="skip")
    assert (len(found), found.skipped) == (4, 1)
    assert found.describe().endswith("; 1 unreadable ones were skipped.")


def test_a_path_is_not_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_folder(np.zeros((2, 4, 4, 3), np.uint8), [0, 0], Path("digits"))
    assert len(load_images(Path("digits"))) == 2
    assert len(load_images("digits")) == 1797
