"""Training on images of one's own from the command line: a method makes a recipe that fits them."""

import numpy as np
import pytest
from PIL import Image

import cm_ray as cm
from cm_ray.command_line.training import parse_training


@pytest.fixture
def photos(tmp_path):
    """Twelve files in colour of 20x16, in a folder for each of two classes."""
    draw = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_a_method_makes_the_recipe_that_python_makes(photos):
    recipe = parse_training(["ict", "--data", str(photos), "--data.size", "16", "--steps", "7"])
    assert recipe.network.conditional
    assert recipe.network.channel_mult == (2, 2)
    assert parse_training(["ict", "--data", str(photos)]).name == "ict_20x16", "their own size"
    assert recipe.evaluation.extractor == "scattering"
    assert (recipe.steps, recipe.data.path, recipe.data.size) == (7, str(photos), 16)
    images = cm.load_images(photos, size=16)
    deviation = float((images.images.float() / 127.5 - 1).std())
    assert recipe.column.sigma_data == pytest.approx(deviation, abs=1e-4)


def test_the_recipe_is_for_the_images_as_they_are_read(photos):
    for number, level in enumerate((0, 90, 200, 255)):
        Image.new("LA", (16, 16), (level, 0)).save(photos / "cat" / f"clear-{number}.png")
    given = {"size": 16, "channels": 1, "background": "black", "bits": 12, "most_pixels": 10**6}
    options = [
        word for name, value in given.items() for word in (f"--data.{name.replace('_', '-')}", str(value))
    ]
    recipe = parse_training(["ict", "--data", str(photos), *options])
    assert {name: getattr(recipe.data, name) for name in given} == given
    images = cm.load_images(photos, **given)
    deviation = float((images.images.float() / 127.5 - 1).std())
    assert (images.shape, images.transparent) == ((1, 16, 16), 4)
    assert recipe.column.sigma_data == pytest.approx(deviation, abs=1e-4)
    with pytest.raises(cm.SettingError, match=r"^data.channels is 1, 3 or 0, not 2"):
        parse_training(["ict", "--data", str(photos), "--data.channels", "2"])


def test_images_that_no_recipe_fits_and_missing_ones_are_refused(photos):
    with pytest.raises(cm.UserError, match="The images are 4x4: sides of at least 8"):
        parse_training(["ict", "--data", str(photos), "--data.size", "4"])
    with pytest.raises(cm.UserError, match="give --data"):
        parse_training(["ect", "--steps", "3"])
    with pytest.raises(cm.UserError, match="nowhere"):
        parse_training(["ict", "--data", "nowhere"])


def test_options_that_there_are_not_are_refused_before_images_are_read(photos):
    """The images decide which options there are, but of some it is known that there are none."""
    with pytest.raises(
        cm.UserError, match=r"--out is not a setting: known are accumulate, augmentation, averages\.…, "
    ):
        parse_training(["ict", "--data", "nowhere", "--out", "runs/mine"])
    with pytest.raises(cm.UserError, match=r"--data.sise is not a setting: did you mean --data.size\?"):
        parse_training(["ict", "--data", "nowhere", "--data.sise", "16"])
    parse_training(["ict", "--data", str(photos), "--data.size", "16", "--no-compile", "--own-code", "a.b:c"])


def test_auto_takes_the_time_and_what_is_given_and_no_method():
    asked = parse_training(
        ["auto", "--data", "digits", "--hours", "0.5", "--batch-size=128", "--augmentation=flip"]
    )
    assert (asked.hours, asked.data.path) == (0.5, "digits")
    assert asked.changes["batch_size"] == 128, "it is the default, and still given"
    assert asked.changes["augmentation"] == "flip"
    assert "steps" not in asked.changes
    for words, problem in (
        (["--hours", "1"], "auto needs images: give data.path"),
        (["--data", "digits"], "hours takes the time"),
        (
            ["--data", "digits", "--hours", "soon"],
            "hours takes the time of the training, such as 0.5, not 'soon'",
        ),
        (["--data", "digits", "--hours", "1", "--method", "ct"], "name ct in place of auto"),
        (["--data", "digits", "--hours", "1", "--teacher", "runs/x"], "name cd in place of auto"),
    ):
        with pytest.raises(cm.UserError, match=problem):
            parse_training(["auto", *words])
