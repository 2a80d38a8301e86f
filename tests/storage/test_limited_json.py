"""JSON files are read within limits: of bytes, values, depth, numbers and shapes, and from files alone."""

import os
import tracemalloc

import pytest

from cm_ray.errors import UserError
from cm_ray.storage.files import MOST_JSON, inside, read_json, read_json_lines
from cm_ray.storage.shapes import ANYTHING, MOST_DEPTH, misfit


def refused(path, shape=None):
    with pytest.raises(UserError) as error:
        read_json(path, shape)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000 + "]" * 200_000, "values for its size"),
        ('{"abcdef":' * 30_000 + "1" + "}" * 30_000, "nested too deeply"),
        ("[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2), "nested too deeply"),
        ("[" + "[]," * 3_000_000 + "[]]", "values for its size"),
        ("1" * 5000, "not valid JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ('{"a": 1', "not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
    ],
)
def test_what_is_no_file_of_settings(text, said, tmp_path):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    tracemalloc.start()
    assert said in refused(tmp_path / "x.json")
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    assert "more than 16 MiB" in refused(tmp_path / "x.json")
    assert tracemalloc.get_traced_memory()[1] < 3 * MOST_JSON
    tracemalloc.stop()


def test_devices_and_pipes_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "endless.json"):
        assert "is not a file" in refused(tmp_path / name)


def test_nesting_and_numbers_that_settings_have_are_read(tmp_path):
    (tmp_path / "x.json").write_text("[" * 40 + "1e3" + "]" * 40)
    assert read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('["a, b, c, {[{[,,,,,,,,,,,,,,,"]')
    assert read_json(tmp_path / "x.json", [str])


@pytest.mark.parametrize(
    ("value", "shape", "said"),
    [
        (1, int, ""),
        (1, float, ""),
        (1.5, float, ""),
        (True, int, "it must be an integer, not True"),
        (True, float, "it must be a number, not True"),
        (1.0, int, "it must be an integer, not 1.0"),
        (10**30, int, "it must be an integer, not 'a huge number'"),
        (float("inf"), float, "it must be a number, not inf"),
        (None, (float, None), ""),
        ("a", (float, None), "it must be a number, not 'a'"),
        ({"a": 1}, {"a": int, "b?": str}, ""),
        ({"a": 1, "c": 2}, {"a": int}, "c is unknown there"),
        ({}, {"a": int}, "a is missing"),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [int]}}, "a.b[1] must be an integer, not 'x'"),
        ({"x": "y"}, {str: str}, ""),
        ({"x": {}}, {str: str}, "x must be a text, not {}"),
        ([1], dict, "it must be a group of entries, not […]"),
        ({"a": 1}, [int], "it must be a list, not {…}"),
        ([{"a": None}, "x", 1, True, []], [ANYTHING], ""),
        ({"a" * 10**6: 1}, {}, f"{'a' * 80} is unknown there"),
        ("x" * 10**6, int, f"it must be an integer, not '{'x' * 60}'"),
    ],
)
def test_shapes(value, shape, said):
    assert misfit(value, shape) == said


def test_lines_of_a_log(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3, "loss": 0.5}\n')
    shape = {"step": int, str: ANYTHING}
    assert read_json_lines(file, shape) == [{"step": 1}, {"step": 3, "loss": 0.5}]
    file.write_text('{"step": 1, "loss": NaN}\n{"step": "2"}\n')
    with pytest.raises(UserError, match=r"Line 2 of .*\(step must be an integer, not '2'\)"):
        read_json_lines(file, shape)


@pytest.mark.parametrize("name", ["/etc/hostname", "../x.png", "a/../../x.png", "link/x.png", ""])
def test_files_outside_are_not_followed(name, tmp_path):
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    if not name:
        assert inside(folder, "samples/x.png") == folder / "samples" / "x.png"
        return
    with pytest.raises(UserError, match="outside of it"):
        inside(folder, name)
