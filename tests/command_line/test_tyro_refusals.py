"""Mistyped command lines are refused in one sentence, whatever the width of the terminal."""

import pytest

from cm_ray.command_line.main import run

CASES = [
    ("sample", "MODEL is missing: Run directory, model folder, models:/NAME@ALIAS, file of weights or"),
    ("export x", "--out PATH is missing: Folder to write for diffusers and model, else file"),
    ("export", "MODEL and --out PATH are missing: give them."),
    ("sample x --samples", "--samples needs a value."),
    ("score x --actors.count", "--actors.count needs a value."),
    ("sample x --samples many", "--samples must be an integer, not many."),
    ("sample x --samples cat", "--samples must be an integer, not cat."),
    ("app x --port 8.5", "--port must be an integer, not 8.5."),
    ("memory --gib lots", "--gib must be a number, not lots."),
    ("sample x --nfee 3", "--nfee is not an option here: did you mean --nfe?"),
    ("shards /data --outt x", "--outt is not an option here: did you mean '--out'?"),
    ("export x --nonsense", "--nonsense is not an option here: --help shows those that are."),
    ("sample x y", "y is a word too many: leave it out, or write its option before it"),
    (
        "score x --scores FID",
        "--scores cannot be 'FID': give one of FD, FDinf, KID, IS, precision, recall, SWD.",
    ),
    ("edit inpant", "task cannot be 'inpant': give one of inpaint, colorize, upscale, stroke, denoise"),
    ("memory --device tpu", "--device cannot be 'tpu': give one of cuda, cpu."),
    ("train ct_digits --steps many", "--steps must be an integer, not many."),
    ("train ct_digits --network.channel-mult 1 x", "--network.channel-mult must be an integer, not 1, x."),
    (
        "train ct_digits --precision flot",
        "--precision cannot be 'flot': give one of float32, ",
    ),
    ("train ct_digits --data", "--data/--data.path needs a value."),
    ("sweep digits_ict --reduction two", "--reduction must be an integer, not two."),
    ("sweep digits_ict --reduction 1", "--reduction must be at least 2, not 1."),
]


@pytest.mark.parametrize("width", ["20", "200"])
@pytest.mark.parametrize(("line", "sentence"), CASES, ids=[line for line, _ in CASES])
def test_one_sentence(line, sentence, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", width)
    assert run(line.split(), prog="cm-ray") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {sentence}")
    assert said.err.count("\n") == 1, "one line"
    assert not {*"╭│╰─"} & {*said.err}, "no box"


def test_help_keeps_the_width_of_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "70")
    with pytest.raises(SystemExit) as ended:
        run(["sample", "--help"], prog="cm-ray")
    assert ended.value.code == 0
    options = [line for line in capsys.readouterr().out.splitlines() if "  --" in line]
    assert len(options) > 10
    assert max(map(len, options)) <= 70
