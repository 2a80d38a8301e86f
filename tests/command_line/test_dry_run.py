"""--dry-run says what a command understood of its images: no Ray, no run directory, no shards."""

import numpy as np
import pytest
from PIL import Image

from cm_ray.command_line import main
from cm_ray.command_line.main import COMMANDS
from tests.cluster.tiny import make_tiny_run

DIGITS = "digits: the digits of scikit-learn, split train\n  1,797 images of 8x8, grey\n  10 classes: 0 (178)"
TRAIN = "photos-train: image files in class folders, split train\n"
FOLDER = "  3 images of 8x8, RGB\n  2 classes: cat (2), dog (1)\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run, pictures of two splits, and a space; nothing may be added to it."""
    for number, name in enumerate(("train/cat/a", "train/cat/b", "train/dog/c", "test/cat/d")):
        file = tmp_path / "photos" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file)
    make_tiny_run(tmp_path / "runs" / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    return tmp_path


WORDS = {
    "train ict_digits": DIGITS,
    "train ict_digits --data photos --data.size 8": TRAIN + FOLDER,
    "train ict --data photos": FOLDER,
    "train ict_digits --data photos --data.split test": "photos-test: image files in class folders",
    "shards photos --out photos-8 --size 8": FOLDER,
    "shards photos --out photos-8 --split test": "  1 image of 8x8, RGB",
    "score runs/tiny": DIGITS,
    "score runs/tiny --data photos --channels 1": FOLDER,
    "score photos --data photos --split test": f"{FOLDER}  left out: 1 other split (test)",
    "time-points runs/tiny --nfe 2": DIGITS,
    "time-points runs/tiny --data photos --split train": FOLDER,
    "sweep digits_ict": DIGITS,
    "sweep digits_ict --set data.path=photos": FOLDER,
    "paper-table": DIGITS,
    "edit upscale --model runs/tiny --image photos/train": "3 images\n  in sub-folders: cat (2), dog (1)\n",
}


@pytest.mark.parametrize("words", WORDS)
def test_it_says_what_was_understood_and_does_nothing(words, place, capsys):
    before = sorted(place.rglob("*"))
    assert main.run([*words.split(), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert WORDS[words] in said, said
    assert sorted(place.rglob("*")) == before


def test_averages_compare_with_the_images_of_the_run(averaged_run, capsys, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    before = sorted(averaged_run.root.rglob("*"))
    assert main.run(["averages", str(averaged_run.root), "--dry-run"]) == 0
    assert DIGITS in capsys.readouterr().out
    assert sorted(averaged_run.root.rglob("*")) == before


@pytest.mark.parametrize(
    "words", ["score photos --data photos --split test", "train ict_digits --data photos"]
)
def test_scored_images_have_no_part_in_the_split_of_the_others(words, place, capsys):
    assert main.run([*words.split(), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("photos-train") == 1
    assert said.count("photos-test") == words.count("split")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train ict_digits --data nowhere", "There is no data set and no path 'nowhere'"),
        ("train ict_digits --data photos --data.split val", "no split 'val'"),
        ("train ict_digits --stepz 3", "--stepz"),
        ("score nowhere --data photos", "nowhere"),
        ("edit interpolate --model runs/tiny", "interpolate reads no images; leave --dry-run out"),
        ("sample runs/tiny", "sample reads no data set that --dry-run could look at; leave it out"),
        ("memory", "memory reads no data set"),
    ],
)
def test_what_is_wrong_is_refused(words, sentence, place, capsys):
    assert main.run([*words.split(), "--dry-run"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.look])
def test_the_help_tells_of_it(name, capsys):
    words = [name, "ict_digits", "--help"] if name == "train" else [name, "--help"]
    with pytest.raises(SystemExit):
        main.run(words, prog="cm-ray")
    assert "--dry-run says what is understood" in " ".join(capsys.readouterr().out.split())
