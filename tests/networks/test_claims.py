"""The claims of a model's files are compared with what they hold, before anything is allocated or built."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cm_ray.errors import UserError
from cm_ray.networks.formats.exporting import write_safetensors
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.reading import SPEC_KEY, load_model, read_model
from cm_ray.networks.model import SPEC, WEIGHTS, save_model
from tests.networks.test_model import DENOISER, LABELLED, model
from tests.networks.test_openai import small

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", LABELLED, model(LABELLED).network.state_dict())
    return tmp_path / "m"


def claiming(folder, path, value):
    """Put a value at a dotted path of model.json."""
    values = json.loads((folder / SPEC).read_text())
    *groups, last = path.split(".")
    target = values
    for name in groups:
        target = target[name]
    target[last] = value
    (folder / SPEC).write_text(json.dumps(values))


HUGE = 10**9
CLAIMS = [
    ("network.channels", 16 * HUGE, "claims a network that is too large to exist"),
    (
        "network.channels",
        32,
        r"belongs to another network: .*time_embed.0.weight is \(64, 16\) there and \(128, 32\)",
    ),
    (
        "network.blocks",
        HUGE,
        r"claims a network of 2 levels with 1000000000 blocks each, and has \d+ tensors, too few",
    ),
    ("network.channel_mult", [1] * 50_000, r"claims a network of 50000 levels with 1 blocks each"),
    ("network.channel_mult", [1, 2 * HUGE], "claims a network that is too large to exist"),
    ("network.channel_mult", [2**70], "claims a network that is too large|is not the specification"),
    ("shape", [1, 2**30, 2**30], r"is not the specification of a model \(.*images of shape"),
    ("shape", [2**30, 8, 8], r"images of shape"),
    ("shape", [0, 8, 8], r"images of shape"),
    ("shape", [1, -8, -8], r"images of shape"),
    ("sampler", f"multistep:{HUGE}", "has too many steps"),
    ("sampler", "multistep@" + ",".join(["1.0"] * 40_000), "has too many steps"),
    ("class_names", [1, 2, 3], "class_names.0. must be a text, not 1"),
    ("class_names", ["a", "b", "c", "d"], r"label_emb.weight is \(3, 64\) there and \(4, 64\) here"),
    ("time_points", [[2.0], [0.5, 2.5]], r"time points \[0.5, 2.5\] that do not descend"),
    ("time_points", [[float("nan")]], "NaN is no number of JSON"),
    ("time_points", [["a"]], "is not the specification of a model"),
    ("diffusion.t_max", float("inf"), "Infinity is no number of JSON"),
    ("diffusion.t_max", 10**400, "is not valid JSON|is not the specification of a model"),
    ("network.dropout", "0", "is not the specification of a model"),
]


@pytest.mark.parametrize(
    ("path", "value", "sentence"), CLAIMS, ids=[f"{p} {n}" for n, (p, *_) in enumerate(CLAIMS)]
)
def test_a_claim_that_the_weights_do_not_bear_is_refused(path, value, sentence, folder, tmp_path):
    claiming(folder, path, value)
    with pytest.raises(UserError, match=sentence):
        read_model(folder)
    file = tmp_path / "one.safetensors"
    save_file(load_file(folder / WEIGHTS), file, metadata={SPEC_KEY: (folder / SPEC).read_text()})
    with pytest.raises(UserError, match=sentence):
        load_model(file)


READING = """
import resource, sys
from pathlib import Path
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model

def peak():
    '''Return the most memory so far, in bytes; getrusage begins with that of the parent.'''
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
for name in sys.argv[1:]:
    try: load_model(Path(name))
    except UserError as error: assert "another network" in str(error), error
    else: raise SystemExit("it was read")
print(peak() - before, peak())
"""
"""A program that reads models, and tells how much more memory that took than before, and the most of all."""


def test_a_claim_takes_no_memory(folder, tmp_path):
    """The refusals come within little more memory than Python and PyTorch need; 1 GiB would be too much."""
    for number, (path, value) in enumerate(
        [("network.channels", 2**14), ("network.channel_mult", [1024, 2048])]
    ):
        target = tmp_path / str(number)
        target.mkdir()
        for name in (SPEC, WEIGHTS):
            (target / name).write_bytes((folder / name).read_bytes())
        claiming(target, path, value)
    command = [sys.executable, "-c", READING, str(tmp_path / "0"), str(tmp_path / "1")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    more, most = map(int, done.stdout.split())
    assert more < 2**30
    assert most < 3 * 2**30


@pytest.mark.parametrize("text", ["[" * 200_000, '{"shape": ' * 50_000, "1" * 6000, "\x00", '"\ud800"'])
def test_json_that_fills_the_stack_is_a_sentence(text, folder):
    (folder / SPEC).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"model.json is not (valid JSON|the specification)"):
        read_model(folder)


def test_a_large_file_of_settings_is_not_read(folder):
    with (folder / SPEC).open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match=r"model.json has more than 16 MiB, and no file of its kind"):
        read_model(folder)


def test_metadata_of_a_file_are_checked(tmp_path):
    file = tmp_path / "one.safetensors"
    write_safetensors(file, model(DENOISER))
    assert load_model(file).spec == DENOISER
    state = load_file(file)
    for text in ("{", "[" * 100_000, "3"):
        save_file(state, file, metadata={SPEC_KEY: text})
        with pytest.raises(UserError, match=r"The metadata of .* is not (valid JSON|the specification)"):
            read_model(file)


def test_classes_of_tensors_without_values_are_counted_out(tmp_path):
    with pytest.raises(UserError, match=r"claim 1000000000 classes"):
        placeholders(HUGE)
    _, file = small(tmp_path, "cd_imagenet64.pt", lambda w: w | {"label_emb.weight": torch.zeros(HUGE, 0)})
    with pytest.raises(UserError, match=r"claim 1000000000 classes"):
        read_model(file)


def test_names_of_layers_do_not_make_layers(tmp_path):
    """A name with a large number claims as many layers."""
    one = {"output_blocks.2000000001.0.skip_connection.weight": torch.ones(1)}
    _, file = small(tmp_path, "cd_imagenet64.pt", lambda w: w | one)
    with pytest.raises(UserError, match=r"is not a U-Net of OpenAI \('input_blocks.1000000002"):
        load_model(file)
