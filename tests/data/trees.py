"""Small data sets of image files, each image told by one number, and what is read of them."""

import io
import pickle
import tarfile
import zipfile

import numpy as np
from PIL import Image

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.open_source import open_source


def image_bytes(number, format="png"):
    """An image of 4x4 whose red is `number`."""
    pixels = np.empty((4, 4, 3), np.uint8)
    pixels[:] = number, 100, 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **({"lossless": True} if format == "webp" else {}))
    return buffer.getvalue()


def content(value):
    """The bytes of a file: an image for a number, text and bytes as they are."""
    if isinstance(value, int):
        return image_bytes(value)
    return value.encode() if isinstance(value, str) else value


def plant(root, files):
    """Write files {path: content}, a path that ends with / as an empty folder; return the root."""
    for path, value in files.items():
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content(value))
    return root


def zipped(path, files, compression=zipfile.ZIP_DEFLATED):
    """Write the same files into an archive; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in files.items():
            archive.writestr(name, b"" if name.endswith("/") else content(value))
    return path


def tarred(path, files, format=tarfile.PAX_FORMAT):
    """Write the same files into a tar archive; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, value in files.items():
            info = tarfile.TarInfo(name)
            data = b"" if name.endswith("/") else content(value)
            info.type, info.size = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE, len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def opened(form, place, files, split="", **options):
    """Open a data set of files in a folder or in an archive."""
    archives = {"zip": zipped, "tar": tarred}
    path = archives[form](place / f"set.{form}", files) if form in archives else plant(place / "set", files)
    return open_source(str(path), split, options=ReadOptions(**options))


def seen(source, rows=2, **options):
    """The content of a source: {number of the image: name or number of its class, None without}."""
    found = {}
    for part in pickle.loads(pickle.dumps(source.parts(rows))):
        for batch in part.read(ReadOptions(**options)):
            for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
                number = round(float(image[..., 0].mean()))
                assert number not in found, f"{number} is read twice"
                found[number] = _name(source, label)
    return dict(sorted(found.items()))


def _name(source, label):
    if label < 0:
        return None
    return source.class_names[label] if source.class_names else label


def left(source):
    """The files that a source leaves out, as sentences."""
    return [f"{each.count} {each.what}: {each.why}" for each in source.left_out]
