"""Kinds of files in a data set: images, tables, and files that are neither."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum

from cm_ray.data.pictures.image_formats import READABLE_ENDINGS, format_of


class Kind(Enum):
    """The kind of a file in a data set."""

    IMAGE = "an image"
    PARQUET = "a Parquet file"
    NPZ = "an .npz file"
    ARCHIVE = "an archive"
    TAR = "a tar archive"
    UNREADABLE = "an image of a format that is not read"
    UNKNOWN = "a file of unknown ending and content"
    OTHER = "a file that is known to be no image"


def _endings(text: str) -> tuple[str, ...]:
    return tuple(f".{word}" for word in text.split())


_UNREADABLE = (
    "heic heif hif jxl jxr svg svgz eps ps pdf ai psd psb xcf ico cur icns exr hdr wmf emf xpm xbm dcm nii "
    "raw dng cr2 cr3 nef arw orf rw2 raf pef srw fits fit mp4 avi mov mkv webm mpg mpeg"
)
_OTHER = (
    "txt md rst csv tsv json jsonl ndjson xml html htm css js yaml yml toml ini cfg conf log py ipynb sh bat "
    "m r c h cpp cc java rb go rs lua pyc so dll exe lock bib tex doc docx xls xlsx ppt pptx odt ods npy mat "
    "pkl pickle pt pth ckpt safetensors h5 hdf5 bin db sqlite sqlite3 lmdb mdb arrow feather tfrecord onnx "
    "part tmp crdownload download bak swp sha256 md5 sha1 sig asc url lnk desktop wav mp3 flac ogg srt vtt"
)
_KINDS = {
    **dict.fromkeys(READABLE_ENDINGS, Kind.IMAGE),
    ".parquet": Kind.PARQUET,
    ".npz": Kind.NPZ,
    ".tar": Kind.TAR,
    **dict.fromkeys(_endings("zip tgz gz bz2 xz zst 7z rar lz4"), Kind.ARCHIVE),
    **dict.fromkeys(_endings(_UNREADABLE), Kind.UNREADABLE),
    **dict.fromkeys(_endings(_OTHER), Kind.OTHER),
}


_NO_TABLES = ("metadata.parquet",)  # beside images of the hub, with captions and the like


def ending(name: str) -> str:
    """Return the ending of a file's name in small letters, such as ".png"; "" when it has none."""
    return os.path.splitext(name)[1].lower()


def kind_of(name: str, head: Callable[[], bytes]) -> Kind:
    """Return what a file is, by its ending, or by its content where the ending is unknown or missing.

    head: reads the first bytes of the file, `SIGNATURE_BYTES` of `image_formats`.
    """
    kind = Kind.OTHER if name.lower() in _NO_TABLES else _KINDS.get(ending(name))
    if kind is None:
        return Kind.IMAGE if format_of(head()) else Kind.UNKNOWN
    return kind
