"""Tells what a file is by its bytes, where weights are expected: a pointer, a web page, an archive, a "
"pickle."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

from cm_ray.errors import UserError, plain

Kind = Literal["safetensors", "torch zip", "torch legacy"]
"""Kinds of files that hold named tensors."""
_HEAD = 1 << 16
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickled number at the beginning of files of PyTorch before its zip format."""
_MOST_HEADER = 100_000_000
"""The largest header of safetensors, in bytes."""
_AGAIN = "download it again"
_FORMATS = {
    b"\x1f\x8b": "an archive (gzip): unpack it, and give the file of weights in it",
    b"BZh": "an archive (bzip2): unpack it, and give the file of weights in it",
    b"\xfd7zXZ": "an archive (xz): unpack it, and give the file of weights in it",
    b"\x28\xb5\x2f\xfd": "an archive (zstd): unpack it, and give the file of weights in it",
    b"7z\xbc\xaf": "an archive (7z): unpack it, and give the file of weights in it",
    b"Rar!": "an archive (rar): unpack it, and give the file of weights in it",
    b"\x89HDF": "an HDF5 file, such as of Keras: give PyTorch's weights of this model",
    b"GGUF": "a GGUF file: give PyTorch's weights of this model",
    b"\x93NUMPY": "an array of NumPy: give a state dict",
    b"\x89PNG": "a picture: give a file of weights",
    b"\xff\xd8\xff": "a picture: give a file of weights",
    b"GIF8": "a picture: give a file of weights",
    b"%PDF": "a PDF document: give a file of weights",
    b"PAR1": "a Parquet file: give a file of weights",
}
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/\S+\s(?:.*\s)*?size (\d+)")
_MOST_TEXT = 60


def kind_of(file: Path) -> Kind:
    """Return the kind of a file of tensors. Raises UserError, which says what it is instead, on another "
    "file."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if not head:
        raise UserError(f"{file} is empty: {_AGAIN}.")
    if _is_safetensors(head, file, size):
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        _check_zip(file, size)
        return "torch zip"
    if head.startswith(b"\x80") and _LEGACY in head[:32]:
        return "torch legacy"
    raise UserError(f"{file} is {_other_kind(head, size)}.")


def _is_safetensors(head: bytes, file: Path, size: int) -> bool:
    """Tell whether a file begins as safetensors do: the length of a header in 8 bytes, and the header's "
    "brace."""
    length = int.from_bytes(head[:8], "little")
    if not re.match(rb'\{\s*["}]', head[8:]) or (head[:8].isascii() and head[:8].decode().isprintable()):
        return False
    if length > _MOST_HEADER:
        raise UserError(f"{file} claims a header of {length} bytes, which safetensors cannot have: {_AGAIN}.")
    if size < 8 + length:
        raise UserError(
            f"{file} is cut off: its header alone has {length} bytes, and the file {size}; {_AGAIN}."
        )
    return True


def _check_zip(file: Path, size: int) -> None:
    """Raise UserError unless a zip archive is one that PyTorch saves: tensors, stored without compression."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{file} is cut off after {size} bytes, or damaged: {_AGAIN}.") from error
    names = ["/".join(entry.filename.split("/")[1:]) for entry in entries]
    if "data.pkl" not in names:
        raise UserError(f"{file} is {_other_archive([entry.filename for entry in entries])}.")
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise UserError(
            f"{file} is a TorchScript program, which could run any code, not a state dict: give a state dict."
        )
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise UserError(
            f"{file} is compressed, which files of PyTorch are not: unpack it and save its state dict again."
        )


def _other_archive(names: list[str]) -> str:
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy's arrays (.npz), not weights: give a state dict"
    if any(name.endswith("archive_format") for name in names):
        return "a program of torch.export (.pt2), not a state dict: give the model it was made of"
    weights = [name for name in names if name.endswith((".safetensors", ".pt", ".pth", ".ckpt", ".bin"))]
    inside = f" ({weights[0]} is in it)" if weights else ""
    return f"a zip archive of other files{inside}: unpack it, and give the file of weights"


def stand_in(head: bytes) -> str:
    """Return what stands in the place of a file by its first bytes, and what to do; "" if it is another one.

    A checkout without its large files has pointers to them, and a failed download is a web page.
    """
    if match := _POINTER.match(head):
        return (
            f"a pointer of Git LFS to a file of {int(match[1][:18]) / 1e6:.4g} MB, not the file: run git lfs "
            "pull in its checkout, or download the file itself"
        )
    if b"/annex/objects/" in head[:200]:
        return "a pointer of git-annex, not the file: run git annex get in its checkout"
    return "a web page: download the file by its own address" if _is_page(head) else ""


def file_stand_in(file: Path) -> str:
    """Return what stands in the place of a file; "" if it is another one, or cannot be read."""
    try:
        with file.open("rb") as opened:
            return stand_in(opened.read(1024))
    except OSError:
        return ""


def _is_page(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1000].lower()
    return b"<svg" not in start and start.startswith(
        (b"<!doctype html", b"<html", b"<head", b"<!--", b"<?xml", b"<script")
    )


def _other_kind(head: bytes, size: int) -> str:
    """Return what a file is that is not one of tensors, and what to do, without a full stop."""
    if _is_page(head):
        return (
            "a web page, not weights: download the file by its own address (on Hugging Face, the one with "
            "/resolve/), after a login if the page asks for one"
        )
    if found := stand_in(head):
        return found
    for beginning, sentence in _FORMATS.items():
        if head.startswith(beginning):
            return sentence
    if head[257:262] == b"ustar":
        return "an archive (tar): unpack it, and give the file of weights in it"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return _pickle(head)
    if not head.strip(b"\0"):
        return f"a file of zeros, as an unfinished download leaves: {_AGAIN}"
    return _text(head) or f"no file of weights (.safetensors, or .pt with a state dict) or damaged: {_AGAIN}"


def _pickle(head: bytes) -> str:
    if (b"torch_utils" in head and b"persistence" in head) or b"dnnlib" in head:
        return (
            "a pickle of NVIDIA's code (EDM, EDM2), which could run any code when it is opened and is not "
            "opened here: convert it in a checkout of that code, by safetensors.torch.save_file(pickle.load("
            "open(FILE, 'rb'))['ema'].state_dict(), 'NAME.safetensors') with the name of FILE, as "
            "docs/models.md says"
        )
    return (
        "a Python pickle, which could run any code when it is opened and is not opened here: save the "
        "state dict in the code that it belongs to, as docs/models.md says"
    )


def _text(head: bytes) -> str:
    """Return what a text file is; empty for bytes that are no text."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return ""
    if "\0" in text:
        return ""
    beginning = plain(text[: 4 * _MOST_TEXT])[:_MOST_TEXT].rstrip()
    return f"a text that begins with {beginning!r}, not weights: {_AGAIN}"
