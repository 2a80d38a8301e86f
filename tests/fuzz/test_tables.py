"""Archives, tables and lists of labels: any damage gives an error of one sentence, or images."""

import io
import itertools
import json
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from PIL import Image

from cm_ray.data.load_images import load_images
from cm_ray.data.shards.manifest import MANIFEST
from cm_ray.errors import UserError
from tests.archives import zip_bytes
from tests.data.drawn import encoded
from tests.data.making import make
from tests.fuzz.mutations import JSON, NUMBERS, mutated, mutated_archive, mutated_json
from tests.fuzz.running import assert_one_line, fuzz

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array([0, 1, 0, 2, 1, 0])
FILES = [encoded(Image.fromarray(one)) for one in PIXELS]
LISTED = {"labels": [[f"00000/img0000000{index}.png", int(label)] for index, label in enumerate(LABELS)]}
"""A dataset.json of EDM."""


def npz(save=np.savez, **arrays):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def parquet(columns, **options):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def hub(images=FILES, labels=LABELS):
    return {"image": [{"bytes": one, "path": "x.png"} for one in images], "label": labels}


def edm(listed=LISTED):
    files = {name: data for (name, _), data in zip(LISTED["labels"], FILES, strict=True)}
    return {**files, "dataset.json": json.dumps(listed).encode()}


CSV = b"file_name,label\n" + b"".join(b"%d.png,%d\n" % (index, label) for index, label in enumerate(LABELS))


def metadata(ending, content):
    """An archive of images beside a file of metadata."""
    files = {f"{index}.png": data for index, data in enumerate(FILES)}
    if not isinstance(content, bytes):
        content = "\n".join(map(json.dumps, content)).encode()
    return zip_bytes({**files, f"metadata.{ending}": content})


ARRAYS = [
    npz(arr_0=PIXELS, arr_1=LABELS),
    npz(np.savez_compressed, arr_0=PIXELS, arr_1=LABELS),
    npz(images=PIXELS, labels=LABELS.astype(np.int32)),
]
TABLES = [
    parquet(hub()),
    parquet(hub(), compression="zstd", row_group_size=2, data_page_version="2.0"),
    parquet({"img": FILES, "fine_label": LABELS.astype(np.int32)}, use_dictionary=False),
]
ARCHIVES = [
    zip_bytes({f"{'abc'[label]}/{index}.png": FILES[index] for index, label in enumerate(LABELS)}),
    zip_bytes(edm(), zipfile.ZIP_DEFLATED),
]


def tar_bytes(files):
    """A tar archive of files, whose headers have names of several kinds."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def samples(said):
    """A WebDataset archive: labels in cls, or values in json."""
    ending = "cls" if isinstance(said[0], bytes) else "json"
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in said]
    images = {f"{index}.png": data for index, data in enumerate(FILES)}
    return tar_bytes(images | {f"{index}.{ending}": text for index, text in enumerate(texts)})


TARS = [
    samples([b"%d" % label for label in LABELS]),
    samples([{"label": int(label)} for label in LABELS]),
    tar_bytes({f"{'abc'[label]}/{index}{'x' * 120}.png": FILES[index] for index, label in enumerate(LABELS)}),
]


@pytest.fixture
def reading(tmp_path):
    """Return a function that reads a file of these bytes with this ending as images."""
    numbers = itertools.count()

    def read(data, ending):
        path = tmp_path / f"{next(numbers)}{ending}"
        path.write_bytes(data)
        try:
            found = load_images(path, size=4)
        except UserError as error:
            assert_one_line(error)
        else:
            assert found.images.shape[1:] in ((3, 4, 4), (1, 4, 4))
            assert len(found.labels) == found.count
        finally:
            path.unlink()

    return read


def headers():
    """Draw .npz files whose headers promise what there is not."""
    return st.builds(
        lambda shape, kind, fortran: zip_bytes({"arr_0.npy": _npy(shape, kind, fortran) + PIXELS.tobytes()}),
        st.lists(st.sampled_from(NUMBERS), max_size=5),
        st.sampled_from(["|u1", "<i8", "|O", "<f4", "<U9", "|V3", "u1", "", "(2,)u1"]),
        st.booleans(),
    )


def _npy(shape, kind, fortran):
    text = f"{{'descr': {kind!r}, 'fortran_order': {fortran}, 'shape': {tuple(shape)!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def schemas():
    """Draw tables of odd columns."""
    cell = st.none() | st.binary(max_size=6) | st.sampled_from(FILES)
    images = st.lists(cell, min_size=6, max_size=6)
    labels = st.lists(st.none() | st.integers(-3, 2**40), min_size=6, max_size=6)
    texts = st.lists(st.none() | st.text(max_size=4), min_size=6, max_size=6)
    floats = st.lists(st.floats(), min_size=6, max_size=6)
    nested = images.map(lambda column: [None if one is None else {"bytes": one} for one in column])
    columns = st.sampled_from(["image", "img", "label", "labels", "fine_label", "path", "bytes", "class"])
    kinds = st.one_of(images, labels, texts, floats, nested, st.just([[1]] * 6), st.just([{}] * 6))
    return st.dictionaries(columns, kinds, min_size=1, max_size=4).map(_as_table).filter(bool)


def _as_table(columns):
    try:
        return parquet(columns)
    except (pa.ArrowException, TypeError):  # structs without fields cannot be written
        return b""


def test_the_files_themselves_are_read(tmp_path):
    for ending, files in ((".npz", ARRAYS), (".parquet", TABLES), (".zip", ARCHIVES)):
        for index, data in enumerate(files):
            path = tmp_path / f"{index}{ending}"
            path.write_bytes(data)
            assert load_images(path).labels.tolist() == LABELS.tolist() or ending == ".zip"


def test_arrays(reading):
    damaged = st.sampled_from(ARRAYS).flatmap(lambda data: mutated(data) | mutated_archive(data))
    fuzz(damaged | headers(), lambda data: reading(data, ".npz"), few=120)


def test_tables(reading):
    damaged = st.sampled_from(TABLES).flatmap(mutated)
    fuzz(damaged | schemas(), lambda data: reading(data, ".parquet"), few=120)


def test_archives(reading):
    damaged = st.sampled_from(ARCHIVES).flatmap(lambda data: mutated(data) | mutated_archive(data))
    listed = mutated_json(LISTED).map(lambda listed: zip_bytes(edm(listed)))
    lines = [{"file_name": f"{index}.png", "label": int(label)} for index, label in enumerate(LABELS)]
    jsonl = st.sampled_from(lines).flatmap(mutated_json).map(lambda line: metadata("jsonl", [*lines, line]))
    csv = mutated(CSV).map(lambda text: metadata("csv", text))
    fuzz(damaged | listed | jsonl | csv, lambda data: reading(data, ".zip"), few=120)


def test_tar_archives(reading):
    damaged = st.sampled_from(TARS).flatmap(mutated)
    value = {"label": 1, "caption": "x"}
    said = mutated_json(value).map(lambda other: samples([value] * 5 + [other]))
    texts = st.lists(st.binary(max_size=4), min_size=6, max_size=6).map(samples)
    fuzz(damaged | said | texts, lambda data: reading(data, ".tar"), few=120)


@pytest.fixture
def shards(tmp_path):
    """Return a folder of shards."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, data in enumerate(FILES):
        (folder / f"{index}.png").write_bytes(data)
    from cm_ray.data.open_source import open_source

    make(open_source(str(folder)), tmp_path / "shards", rows=3)
    return tmp_path / "shards"


def test_manifests(shards):
    whole = json.loads((shards / MANIFEST).read_text())

    def check(value):
        (shards / MANIFEST).write_text(json.dumps(value))
        try:
            load_images(shards)
        except UserError as error:
            assert_one_line(error)

    fuzz(mutated_json(whole) | JSON, check, few=120)


def test_shards(shards):
    file = sorted(shards.glob("*.parquet"))[0]
    whole = file.read_bytes()
    manifest = json.loads((shards / MANIFEST).read_text())

    def check(data):
        file.write_bytes(data)
        described = [*manifest["shards"]]
        described[0] = described[0] | {"bytes": len(data)}
        (shards / MANIFEST).write_text(json.dumps(manifest | {"shards": described}))
        try:
            load_images(shards)
        except UserError as error:
            assert_one_line(error)

    fuzz(mutated(whole), check, few=120)
