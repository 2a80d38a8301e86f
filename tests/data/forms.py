"""The same images in every form that is read, and how equal image sets are told."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from cm_ray.data.image_set import ImageSet
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from tests.data.making import make

DIGITS = tuple("0123456789")
DIGIT_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


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


def all_digits():
    """All 1,797 digits: uint8 (n, 8, 8, 1) and labels (n,)."""
    (part,) = open_source("digits").parts(2000)
    batches = list(part.read(ReadOptions()))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


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


def as_parquet(images, labels, path, names=DIGITS):
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": [{"bytes": png(image), "path": None} for image in images], "label": labels})
    pq.write_table(table.replace_schema_metadata(metadata), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_shard_folder(images, labels, path):
    return shards_of(open_source(as_npz(images, labels, path)), path)


def shards_of(source, path):
    """Make shards of 500 rows as the job does."""
    make(source, path, 500)
    return str(path)


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def picture(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def as_tensors(image):
    """The images are as torchvision's ToTensor and Normalize(0.5, 0.5) make them."""
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
    assert found.class_counts == known.class_counts == DIGIT_COUNTS
    assert found.fingerprint == known.fingerprint
