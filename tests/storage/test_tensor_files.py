"""Files of tensors are read without running code; what other files are is said, and what to do."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cm_ray.errors import UserError
from cm_ray.storage.tensor_files import check_finite, read_safetensors, read_tensor_file
from tests.archives import zip_bytes

STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.tensor([1.5, -2.0]),
    "n": torch.tensor(7),
}


class Secret:
    """A class of another program."""

    def __reduce__(self):
        return print, ("this ran",)


def bytes_of(save, *arguments):
    stream = io.BytesIO()
    save(*arguments, stream)
    return stream.getvalue()


def torch_bytes(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def safetensors_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pt"))
    return stream.getvalue()


def script_bytes():
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), stream)
    return stream.getvalue()


def recompressed(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zip_bytes({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)


def equal(found, state):
    return list(found) == list(state) and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["x.pt", "x.ckpt", "x.bin", "x.safetensors", "x"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_the_content_decides_and_not_the_name(kind, name, tmp_path):
    file = tmp_path / name
    if kind == "safetensors":
        save_file(STATE, file, metadata={"made": "here"})
        found, metadata = read_tensor_file(file)
        assert metadata == {"made": "here"}
        assert {*found} == {*STATE}
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)
        return
    torch.save(STATE, file, _use_new_zipfile_serialization=kind == "zip")
    found, metadata = read_tensor_file(file)
    assert metadata == {}
    assert equal(found, STATE)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 219012345\n"
LFS_EXTENDED = (
    b"version https://git-lfs.github.com/spec/v1\next-0-foo sha256:1\noid sha256:4d\nsize 12000000\n"
)
EDMS = b"\x80\x03}q\x00X\x03\x00\x00\x00emaq\x01ctorch_utils.persistence\n_reconstruct_persistent_obj\nq\x02"
WHOLE = torch_bytes(STATE)
OTHERS = {
    "lfs": (LFS, "is a pointer of Git LFS to a file of 219 MB, not the file: run git lfs pull"),
    "lfs with extensions": (LFS_EXTENDED, "is a pointer of Git LFS to a file of 12 MB"),
    "annex": (b"../../.git/annex/objects/x1/M/SHA256E-s5--1.pt", "is a pointer of git-annex"),
    "html": (
        b"<!DOCTYPE html>\n<html><title>Sign in</title>",
        "is a web page, not weights: download the file by",
    ),
    "html after a mark": (b"\xef\xbb\xbf\n <HTML lang='en'>", "is a web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    "text": (b"Entry not found\n\x1b[31m", "is a text that begins with 'Entry not found', not weights"),
    "json": (b'{"abcd":{"error": "not found"}}', 'is a text that begins with \'{"abcd":'),
    "latin text": ("Entrée".encode("latin-1") * 3, "is no file of weights"),
    "empty": (b"", "is empty: download it again"),
    "zeros": (bytes(4096), "is a file of zeros, as an unfinished download leaves"),
    "gzip": (gzip.compress(WHOLE), r"is an archive \(gzip\): unpack it"),
    "tar": (tarred(), r"is an archive \(tar\): unpack it"),
    "zip of weights": (
        zip_bytes({"m/weights.pt": WHOLE}),
        r"a zip archive of other files \(m/weights.pt is in it\)",
    ),
    "zip": (zip_bytes({"a.txt": b"x"}), "is a zip archive of other files: unpack it"),
    "npz": (bytes_of(lambda s: np.savez(s, a=np.ones(3))), r"is an archive of NumPy's arrays \(.npz\)"),
    "npy": (bytes_of(lambda s: np.save(s, np.ones(3))), "is an array of NumPy: give a state dict"),
    "png": (b"\x89PNG\r\n\x1a\n....", "is a picture: give a file of weights"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, such as of Keras"),
    "script": (script_bytes(), "is a TorchScript program, which could run any code"),
    "edm": (
        EDMS,
        r"is a pickle of NVIDIA's code \(EDM, EDM2\), .*\['ema'\]\.state_dict\(\), 'NAME.safetensors'\) with",
    ),
    "edm2": (
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x0cdnnlib.util\x94\x8c\x08EasyDict\x94\x93\x94)\x81\x94",
        "is a pickle of NVIDIA's code .* convert it in a checkout of that code",
    ),
    "pickle": (
        pickle.dumps({"a": Secret()}),
        "is a Python pickle, which could run any code when it is opened",
    ),
    "module": (
        torch_bytes({"model": torch.nn.Linear(1, 1)}),
        "holds torch.nn.modules.linear.Linear besides tensors",
    ),
    "object": (
        torch_bytes({"a": torch.ones(1), "b": Secret()}),
        "holds .*print besides tensors, whose code is not",
    ),
    "cut zip": (WHOLE[: len(WHOLE) // 2], r"is cut off after \d+ bytes, or damaged: download it again"),
    "cut legacy": (
        torch_bytes(STATE, _use_new_zipfile_serialization=False)[:-9],
        "is damaged, cut off, or no file",
    ),
    "compressed": (recompressed(WHOLE), "is compressed, which files of PyTorch are not"),
    "expanded": (
        torch_bytes({"a": torch.ones(1).expand(10**9, 10**9)}),
        r"has \d+ bytes and claims tensors of 4000",
    ),
    "sparse": (torch_bytes({"a": torch.eye(3).to_sparse()}), "holds a tensor that is sparse"),
    "large header": (
        safetensors_bytes(b"{}", b"")[:7] + b"\x02{}",
        "claims a header of 144115188075855874 bytes",
    ),
    "header beyond the end": (
        struct.pack("<Q", 10**7) + b'{"a"',
        "is cut off: its header alone has 10000000 bytes",
    ),
    "sizes that lie": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [10**9, 10**3], "data_offsets": [0, 8]}}, bytes(8)),
        r"is damaged or cut off \(.*\): restore it",
    ),
    "cut safetensors": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(12)),
        r"is damaged or cut off \(incomplete metadata, file not fully covered\)",
    ),
    "header that is no JSON": (safetensors_bytes(b'{"a": \xff}'), r"is damaged or cut off"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_other_files_are_named_in_one_sentence(kind, name, tmp_path, capfd):
    content, sentence = OTHERS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as refused:
        read_tensor_file(tmp_path / name)
    text = str(refused.value)
    assert text.startswith(str(tmp_path / name))
    assert text.isprintable()
    assert text.endswith(".")
    assert not {"weights_only", "trusted", "pickle_module"} & {*text.split()}, "no advice of PyTorch"
    assert capfd.readouterr() == ("", ""), "nothing ran, and nothing else was said"


def test_shared_tensors_are_read_and_copies_without_end_are_not(tmp_path):
    whole = torch.arange(1000.0)
    torch.save({"embedding": whole, "head": whole, "part": whole[:10]}, tmp_path / "tied.pt")
    found, _ = read_tensor_file(tmp_path / "tied.pt")
    assert torch.equal(found["head"], whole)
    torch.save({str(n): whole for n in range(100)}, tmp_path / "many.pt")
    with pytest.raises(UserError, match="claims tensors of"):
        read_tensor_file(tmp_path / "many.pt")


def test_groups_that_contain_themselves_end(tmp_path):
    group = {"a": torch.ones(2)}
    for _ in range(60):
        group = {"left": group, "right": group}
    torch.save(group, tmp_path / "deep.pt")
    found, _ = read_tensor_file(tmp_path / "deep.pt")
    assert {*found} == {"left", "right"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64]
)
def test_values_that_are_not_finite_are_counted_by_name(kind, bad):
    good, wrong = torch.ones(4, 5), torch.ones(4, 5)
    wrong[1, 2] = wrong[3, 0] = wrong[3, 4] = bad
    tensors = {"good": good.to(kind), "time_embed.0.weight": wrong.to(kind), "n": torch.tensor([2**62])}
    check_finite({"good": good.to(kind), "n": tensors["n"]}, "FILE")
    with pytest.raises(UserError) as refused:
        check_finite(tensors, "FILE")
    sentence = (
        "time_embed.0.weight of FILE has 3 values that are not finite; restore it, or download it again."
    )
    assert str(refused.value) == sentence
    single = {"b": torch.tensor([1.0, bad]), "c": torch.tensor(bad), "d": torch.tensor([bad])}
    with pytest.raises(
        UserError, match=r"^b of FILE has a value that is not finite, and 2 more of its tensors have"
    ):
        check_finite(single, "FILE")


def test_extremes_of_every_kind_are_finite():
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
    extremes = {
        f"{kind} {end}": torch.tensor([getattr(torch.finfo(kind), end)], dtype=torch.float64).to(kind)
        for kind in kinds
        for end in ("min", "max", "tiny")
    }
    whole = {
        "i": torch.tensor([2**63 - 1]),
        "b": torch.tensor([True]),
        "u": torch.tensor([255], dtype=torch.uint8),
    }
    check_finite({**extremes, **whole, "empty": torch.ones(0, 3), "scalar": torch.tensor(1.0)}, "FILE")
    check_finite(
        {"view": torch.ones(3, 4, 5, 6).to(memory_format=torch.channels_last).transpose(0, 3)}, "FILE"
    )


def test_safetensors_of_a_folder(tmp_path):
    file = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match="is missing: restore it"):
        read_safetensors(file)
    torch.save(STATE, file)
    with pytest.raises(UserError, match=r"is a file of PyTorch \(torch zip\) called .safetensors"):
        read_safetensors(file)
    save_file({"a": torch.tensor([1.0, float("nan")])}, file)
    with pytest.raises(UserError, match=r"a of .* has a value that is not finite"):
        read_safetensors(file)
    assert read_safetensors(file, check=False)[0]["a"].isnan().tolist() == [False, True]


@pytest.mark.parametrize("value", [1e300, -1e39])
def test_a_value_that_is_infinite_in_float32_is_refused(value):
    """Networks have their weights in float32: what is finite in a file of float64 would be infinite there."""
    check_finite({"w": torch.tensor([3e38, -3e38, 1e-300], dtype=torch.float64)}, "FILE")
    with pytest.raises(UserError, match=r"^w of FILE has a value that is not finite; restore it"):
        check_finite({"w": torch.tensor([1.0, value], dtype=torch.float64)}, "FILE")
