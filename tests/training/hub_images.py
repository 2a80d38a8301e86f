"""Random images in the columns of the Hugging Face hub, for the benchmarks on CIFAR-10."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def write_images(folder):
    """Write train/ and test/ of 8 images of 8 classes; return the folder."""
    for number, split in enumerate(("train", "test")):
        (folder / split).mkdir(parents=True)
        generator, rows = np.random.default_rng(number), []
        for _ in range(8):
            stream = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
            rows.append({"bytes": stream.getvalue(), "path": None})
        table = pa.table({"img": rows, "label": pa.array(range(8), pa.int64())})
        pq.write_table(table, folder / split / "0.parquet")
    return folder
