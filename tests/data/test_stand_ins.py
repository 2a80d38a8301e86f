"""Things in the place of data, such as a pointer of Git LFS, are named wherever data is read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from tests.data.trees import plant, zipped

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345678\n"
STAND_INS = {
    "a pointer of Git LFS to a file of 12.35 MB, not the file: run git lfs pull in its checkout": POINTER,
    "a pointer of git-annex, not the file: run git annex get": "/annex/objects/SHA256E-s12--ab.png\n",
    "a web page: download the file by its own address": "\ufeff\n <!DOCTYPE html><title>Sign in</title>",
}


@pytest.mark.parametrize("sentence", STAND_INS)
def test_what_stands_there_is_named(tmp_path, sentence):
    text = STAND_INS[sentence]
    files = {"a/1.png": 1, "b/2.jpg": text}
    plant(tmp_path / "set", files)
    plant(tmp_path / "tables", {"train-00000-of-00001.parquet": text})
    pq.write_table(pa.table({"image": [text.encode()]}), tmp_path / "rows.parquet")
    for name in ("x.npz", "x.zip", "x.parquet"):
        (tmp_path / name).write_text(text)
    places = ["set", "tables", "rows.parquet", "x.npz", "x.zip", "x.parquet"]
    for path in [*(tmp_path / place for place in places), zipped(tmp_path / "set.zip", files)]:
        with pytest.raises(UserError) as raised:
            load_images(str(path))
        assert sentence in str(raised.value), path


def test_a_drawing_in_xml_is_no_web_page(tmp_path):
    plant(tmp_path, {"1.png": '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'})
    with pytest.raises(UserError, match="of another kind, or damaged at its start"):
        load_images(str(tmp_path))
