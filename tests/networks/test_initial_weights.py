"""An average that is, in part, what its training began with says so wherever it is used."""

import dataclasses
import io
import warnings
from contextlib import redirect_stderr

import pytest

import cm_ray as cm
from cm_ray import recipes
from cm_ray.cluster.time_points.point_plan import SearchPlan
from cm_ray.command_line.commands import export, sample
from cm_ray.command_line.settings.export import Export
from cm_ray.command_line.settings.sample import Sample
from cm_ray.networks.formats.reading import load_model, network_digest, read_model
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import SPEC, spec_from_dict, spec_to_dict
from cm_ray.page.model_card import model_card
from cm_ray.recipes.initial_weights import planned_weights_warning
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.storage.files import read_json, write_json
from tests.api.conftest import TINY
from tests.cluster.tiny import save_tiny

SAID = "61% of the averaged weights of {} are those that its training began with"


@pytest.fixture
def folder(tmp_path):
    """A model of which 61 % are initial weights."""
    return save_tiny(tmp_path / "model", initial_share=0.6065)


def test_the_share_is_in_model_json_and_back(folder):
    spec = read_model(folder)[0]
    assert spec.initial_share == 0.6065
    assert spec_from_dict(spec_to_dict(spec)) == spec
    digest = network_digest(folder)
    write_json(folder / SPEC, read_json(folder / SPEC) | {"initial_share": 0.0, "ema_length": 0.1})
    assert network_digest(folder) == digest, "it is not what the network computes"


@pytest.mark.parametrize(("share", "warned"), [(0.0, False), (0.05, False), (0.0501, True), (1.0, True)])
def test_more_than_five_per_cent_is_told(folder, share, warned):
    spec = dataclasses.replace(read_model(folder)[0], initial_share=share)
    assert bool(initial_weights_warning(spec, "x")) == warned


def test_commands_say_so(folder, tmp_path, capsys):
    sample.run(Sample(model=str(folder), out=tmp_path / "x", samples=2, device="cpu"))
    assert SAID.format(folder) in capsys.readouterr().err
    export.run(Export(model=str(folder), format="model", out=tmp_path / "copy"))
    assert SAID.format(folder) in capsys.readouterr().err
    assert read_model(tmp_path / "copy")[0].initial_share == 0.6065
    save_tiny(tmp_path / "good")
    sample.run(Sample(model=str(tmp_path / "good"), out=tmp_path / "y", samples=2, device="cpu"))
    assert "warning" not in capsys.readouterr().err


def test_the_page_says_so(folder):
    card = model_card(load_model(folder), "demo", folder, "").text
    assert f"**Warning**: {SAID.format('demo')}" in card


def test_python_warns(folder, tmp_path):
    model = cm.load(folder)
    for action in (
        lambda: model.sample(1, seed=0),
        lambda: model.export("model", tmp_path / "copy"),
        lambda: cm.score(model, "digits", n=4, extractor="digits"),
    ):
        with pytest.warns(UserWarning, match="61% of the averaged weights") as found:
            action()
        assert {warning.filename for warning in found} == {__file__}, "it points to the caller"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"averages.decays": (0.999943,)},
            "75% of the average with decay 0.999943 will be the random",
        ),
        (
            {"averages.decays": (0.9999, 0.5)},
            "61% of the average with decay 0.9999 will be the random",
        ),
        ({"averages.decays": (0.5, 0.9999)}, None),
        ({"averages.decays": (0.9994,)}, None),
        ({"averages.decays": (0.9999,), "init_from.model": "runs/edm"}, "will be the weights of runs/edm"),
        ({"averages.decays": (0.9999,), "averages": "warm-up"}, None),
        ({"averages": "power"}, None),
    ],
)
def test_a_training_says_what_it_will_leave(changes, said):
    warning = planned_weights_warning(override(recipes.ict_digits(), {"steps": 5000} | changes))
    assert (warning is None) == (said is None)
    if warning:
        assert warning.startswith("after 5,000 steps ")
        assert said in warning
        assert "choose averages power" in warning


def test_rounds_count_their_own_steps():
    """3,500 steps in rounds of 500 and two of 1,000: the average of the last one has taken 1,000."""
    recipe = override(recipes.pd_digits(), {"steps": 3500, "averages.decays": (0.999,), "teacher.model": "x"})
    assert planned_weights_warning(recipe).startswith(
        "after 1,000 steps 37% of the average with decay 0.999 will be the weights that the last round begins"
    )
    assert planned_weights_warning(recipes.pd_digits()) is None
    teacher = override(recipes.cd_digits(), {"averages.decays": (0.9999,)})
    assert "90% of the average with decay 0.9999 will be the teacher's weights" in planned_weights_warning(
        teacher
    )


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_no_recipe_is_too_short_for_its_average(name):
    assert planned_weights_warning(recipes.named(name)) is None


def test_a_training_warns_at_its_start_while_it_scores_and_at_its_end(tmp_path):
    changes = TINY | {"averages.decays": (0.9,), "evaluation.every": 2, "evaluation.extractor": "none"}
    said = io.StringIO()
    with redirect_stderr(said):
        run = cm.train("ict_digits", out=tmp_path / "run", steps=4, changes=changes)
    lines = said.getvalue().splitlines()
    warning = "warning: after 4 steps 66% of the average with decay 0.9 will be the random"
    assert sum(line.startswith(warning) for line in lines) == 1
    assert [row["initial_share"] for row in run.log if "scores" in row] == [0.81, 0.6561]
    assert sum("81% of the average are the initial weights" in line for line in lines) == 1
    assert any(f"66% of the averaged weights of {tmp_path}/run are those" in line for line in lines)
    assert run.spec.initial_share == pytest.approx(0.9**4)
    assert run.result["average"] == {"kind": "constant", "ema_length": 0.0, "initial_share": 0.9**4}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="66% of the averaged weights"):
            run.sample(1)
    assert RunDirectory(tmp_path / "run").config().averages == cm.ConstantEMA(decays=(0.9,))


def test_a_search_for_time_points_says_so(folder, capsys):
    from cm_ray.cluster.pool.reference import scoring_setup
    from cm_ray.command_line.settings.time_points import TimePointSearch

    settings = TimePointSearch(model=str(folder), data="digits", extractor="digits")
    SearchPlan.of(settings, folder, None, scoring_setup(settings, None))
    assert SAID.format(folder) in capsys.readouterr().err
