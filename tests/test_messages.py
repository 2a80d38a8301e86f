"""Messages are one plain line, and name a setting as its reader can set it."""

import pickle
import subprocess
import sys

import pytest

from cm_ray.errors import SettingError, UserError, as_options, closest, plain, setting, spoken

DIRECTORY = setting("run_dir", python="directory (out)", otherwise="directory")


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[1;4mbold\x1b[m", "red and bold"),
        ("\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        ("\x9b2Jcleared \x1bcreset \x1b(Bset", "cleared reset set"),
        ("two\nlines\r\nand\ta tab\x00", "two lines and a tab"),
        ("back\x08\x08\x08\x7fspace", "back space"),
        ("a\u2028b\u2029c\x85d", "a b c d"),
        ("evil\u202egnp.exe\u2066", "evil\\u202egnp.exe\\u2066"),
        ("caf\udce9.png", "caf\\xe9.png"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        (
            "é 日本\u3000語 नमस्\u200dते 👩\u200d🎨 two  blanks",
            "é 日本\u3000語 नमस्\u200dते 👩\u200d🎨 two  blanks",
        ),
    ],
)
def test_foreign_text_is_one_line_without_control_characters(foreign, shown):
    assert plain(foreign) == shown
    assert plain(shown) == shown
    assert str(UserError(f"{foreign}.")).startswith(shown)
    assert not any(ord(c) < 32 for c in str(SettingError("steps", f"must be {foreign}")))


def test_a_setting_is_an_option_of_a_command_that_has_it():
    error = UserError(f"Choose another {DIRECTORY}.")
    assert str(error) == "Choose another directory (out)."
    with as_options(lambda: {"run_dir", "steps"}):
        assert str(error) == "Choose another --run-dir."
        assert str(pickle.loads(pickle.dumps(error))) == "Choose another --run-dir."
        assert str(SettingError("steps", "must be 1")) == "--steps must be 1."
        assert str(SettingError("data.size", "must be 1")) == "data.size must be 1."
        with as_options(lambda: {"steps"}):
            assert str(error) == "Choose another directory."
        assert spoken(setting("size", "run_dir")) == "--run-dir"
    assert str(SettingError("steps", "must be 1")) == "steps must be 1."
    assert (
        str(SettingError("steps", "is odd: did you mean 'stepz'?")) == "steps is odd: did you mean 'stepz'?"
    )


def test_a_sentence_crosses_a_process_with_its_settings():
    error = UserError(f"Set {setting('data.size', 'size')}.")
    with as_options(lambda: {"size"}):
        assert str(UserError(error.marked)) == "Set --size."
    assert str(UserError(SettingError("steps", "is 0").marked)) == "steps is 0."


def test_hints_name_what_there_is():
    assert closest("heum", ["heun", "euler"]) == "did you mean 'heun'?"
    assert closest("x", ["b", "a"]) == "known are a, b."
    many = [f"name{number:03}" for number in range(100)]
    assert closest("zzz", many) == f"known are {', '.join(many[:30])} and 70 more."
    settings = (
        [f"data.{each}" for each in range(20)] + [f"net.{each}" for each in range(20)] + ["net", "steps"]
    )
    assert closest("zzz", settings) == "known are data.…, net.…, steps."
    assert closest("net.quokkas_there", settings[20:]) == f"known are {', '.join(sorted(settings[20:40]))}."


def test_a_traceback_for_debugging_is_plain_too():
    program = (
        "import sys; from cm_ray.command_line.options import exit_code; from cm_ray.errors import UserError\n"
        "def action():\n"
        "    try: raise ValueError('\\x1b[31mforeign\\x1b[0m')\n"
        "    except ValueError as error: raise UserError('bad\\x1b[5m') from error\n"
        "sys.exit(exit_code(action))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={"CM_RAY_DEBUG": "1"}, timeout=120)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "ValueError: foreign" in done.stderr
    assert done.stderr.endswith("error: bad\n")
