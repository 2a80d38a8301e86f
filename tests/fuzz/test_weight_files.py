"""Files of weights and folders of models: any damage gives an error of one sentence, or a model."""

import io
import itertools
import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import SPEC_KEY, load_model
from cm_ray.networks.model import SPEC, WEIGHTS, save_model, spec_to_dict
from tests.fuzz.mutations import JSON, NUMBERS, mutated, mutated_archive, mutated_json
from tests.fuzz.running import assert_one_line, fuzz
from tests.tracking.tracked_runs import tiny_model

MODEL = tiny_model()
STATE = {name: tensor.contiguous() for name, tensor in MODEL.network.state_dict().items()}
METADATA = {SPEC_KEY: json.dumps(spec_to_dict(MODEL.spec))}


def torch_file(content, **options):
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


SAFE = save(STATE, METADATA)
OTHERS = [
    torch_file(STATE),
    torch_file({"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}, "epoch": 3}),
    torch_file(STATE, _use_new_zipfile_serialization=False),
]


@st.composite
def promising(draw):
    """Draw a .safetensors file with another header: other shapes, types and offsets of its tensors."""
    size = struct.unpack("<Q", SAFE[:8])[0]
    header = json.loads(SAFE[8 : 8 + size])
    name = draw(st.sampled_from(sorted(header)))
    if name != "__metadata__":
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        numbers = st.lists(st.sampled_from(NUMBERS), max_size=4)
        kinds = st.sampled_from(["F32", "F64", "BF16", "F8_E4M3", "I64", "BOOL", "?"])
        header[name] = header[name] | {field: draw(kinds if field == "dtype" else numbers)}
    else:
        header = draw(mutated_json(header))
    text = json.dumps(header).encode()
    length = draw(st.sampled_from([len(text), *NUMBERS])) & (2**64 - 1)
    return struct.pack("<Q", length) + text + SAFE[8 + size :]


@pytest.fixture
def reading(tmp_path):
    """Return a function that reads a file of these bytes with this ending as a model."""
    numbers = itertools.count()

    def read(data, ending):
        path = tmp_path / f"{next(numbers)}{ending}"
        path.write_bytes(data)
        try:
            model = load_model(path, assumed=MODEL.spec)
        except UserError as error:
            assert_one_line(error)
        else:
            assert all(np.isfinite(tensor.numpy()).all() for tensor in model.state_dict().values())
        finally:
            path.unlink()

    return read


def test_the_files_themselves_are_read(tmp_path):
    for index, data in enumerate([SAFE, OTHERS[0]]):
        path = tmp_path / f"{index}{'.pt' if index else '.safetensors'}"
        path.write_bytes(data)
        loaded = load_model(path, assumed=MODEL.spec)
        assert all(torch.equal(STATE[name], tensor) for name, tensor in loaded.network.state_dict().items())


def test_safetensors(reading):
    fuzz(mutated(SAFE) | promising(), lambda data: reading(data, ".safetensors"), few=100)


def test_torch_files(reading):
    damaged = st.sampled_from(OTHERS).flatmap(mutated)
    inside = st.sampled_from(OTHERS[:2]).flatmap(mutated_archive)
    fuzz(damaged | inside, lambda data: reading(data, ".pt"), few=100)


def test_model_folders(tmp_path):
    save_model(tmp_path / "model", MODEL.spec, STATE)
    specification, weights = tmp_path / "model" / SPEC, tmp_path / "model" / WEIGHTS
    whole, data = json.loads(specification.read_text()), weights.read_bytes()

    def check(example):
        value, bytes_ = example
        specification.write_text(json.dumps(value))
        weights.write_bytes(bytes_)
        try:
            load_model(tmp_path / "model")
        except UserError as error:
            assert_one_line(error)

    values, files = mutated_json(whole) | JSON, mutated(data)
    fuzz(st.tuples(values, st.just(data)) | st.tuples(st.just(whole), files), check, few=100)
