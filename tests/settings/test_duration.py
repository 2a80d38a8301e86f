"""Durations as people write them."""

import pytest

from cm_ray.command_line.options import parse
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.errors import SettingError, UserError
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.settings.duration import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172_800), ("0m", 0)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "30 m", "30min", "1h-5m", "1e3s", "inf", "h1", "1m!"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="must be a duration such as 90s, 30m or 2h, not"):
        seconds_of(text)


def test_settings_refuse_them_by_their_names():
    with pytest.raises(SettingError, match="wait_for_nodes must be a duration"):
        ClusterSettings(wait_for_nodes="soon")
    with pytest.raises(UserError, match=r"wait_for_nodes must be a duration such as .*, not 'soon'"):
        parse(Evaluation, ["runs/demo", "--wait-for-nodes", "soon"])
    assert parse(Evaluation, ["runs/demo", "--wait-for-nodes", "5m"]).actors.wait_for_nodes == "5m"
