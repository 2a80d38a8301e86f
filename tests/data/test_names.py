"""Names of files and folders as text, and the order of classes."""

import json

import pytest

from cm_ray.data.interface.names import class_name, in_class_order, printable


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("café 猫.png", "café 猫.png"),
        ("caf\udce9.png", r"caf\xe9.png"),  # Latin-1, as os.fsdecode gives it
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(name, text):
    assert printable(name) == text
    json.dumps(printable(name), ensure_ascii=False).encode()


def test_class_names_are_composed():
    assert class_name("cafe\u0301") == "caf\u00e9"


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "2", "0", "11"], ["0", "2", "10", "11"]),
        (["010", "7", "2"], ["2", "7", "010"]),
        (["007", "7", "06"], ["06", "007", "7"]),
        (["9" * 30, "1" + "0" * 30], ["9" * 30, "1" + "0" * 30]),
        (["10", "2", "b"], ["10", "2", "b"]),
        (["10", "-1", "2", "-20"], ["-20", "-1", "2", "10"]),
        (["10", "²"], ["10", "²"]),  # a digit of Unicode, but no integer
    ],
)
def test_class_order(names, ordered):
    assert in_class_order(names[::-1]) == ordered
