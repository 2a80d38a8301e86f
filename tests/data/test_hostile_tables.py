"""Tables that a fuzzer found: what they claim and what they hold differ."""

import io
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cm_ray as cm
from cm_ray.data.shards.manifest import read_rows, schema_of
from cm_ray.errors import UserError

SHAPE = (1, 2, 2)


def test_a_shard_with_fewer_rows_than_its_metadata_say_is_refused(tmp_path, monkeypatch):
    table = pa.table({"image": [bytes(4)] * 3, "label": [0, 1, 2]}, schema=schema_of(SHAPE))
    pq.write_table(table, tmp_path / "shard.parquet")
    assert read_rows(tmp_path / "shard.parquet", 0, 3, SHAPE)[1].tolist() == [0, 1, 2]
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", lambda *_, **__: table.slice(0, 1))
    with pytest.raises(UserError, match=r"cut off or corrupt \(1 rows instead of 3\)"):
        read_rows(tmp_path / "shard.parquet", 0, 3, SHAPE)


def test_arrays_of_python_2_are_read_without_advice(tmp_path):
    """Python 2 wrote long integers into headers, of which NumPy warns its reader."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 2L, 2L, 1L), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    stream = io.BytesIO(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(range(8)))
    with zipfile.ZipFile(tmp_path / "old.npz", "w") as archive:
        archive.writestr("images.npy", stream.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cm.load_images(tmp_path / "old.npz")
    assert np.array_equal(found.images.flatten(), np.arange(8))
