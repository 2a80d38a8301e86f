"""Search spaces: what they refuse when they are loaded, and what a trial gets of them."""

import dataclasses
import math
import random

import optuna
import pytest

from cm_ray import recipes
from cm_ray.errors import UserError
from cm_ray.networks.unet import check_fits
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Float, Int, Named, Space, When, _Drawn
from cm_ray.sweeps.space_files import FOLDER, load_space

BASE = recipes.ct_digits()


def space(**entries):
    settings = {name: entries.pop(name) for name in ("first", "lines", "base", "minimize") if name in entries}
    names = {name.replace("__", "."): entry for name, entry in entries.items()}
    return Space(question="Which?", base=settings.pop("base", BASE), space=names, **settings)


CONDITIONAL = space(
    distance__name=Categorical(["l2", "pseudo-huber"]),
    distance__c=When({"distance.name": ("pseudo-huber",)}, Float(1e-3, 1, log=True)),
    schedule=Named(
        {
            "adaptive": {"schedule.scales": "adaptive", "schedule.target": "adaptive"},
            "constant": {"schedule.scales": "constant", "schedule.target": "constant", "schedule.s1": 8},
        }
    ),
    schedule__mu0=When({"schedule": ("constant",)}, Categorical([0.0, 0.9])),
    first={"schedule": "adaptive"},
)


class TestRefused:
    @pytest.mark.parametrize(
        ("entries", "sentence"),
        [
            ({}, "needs at least one parameter"),
            ({"schedule__s3": Int(2, 9)}, r"no setting 'schedule.s3'.*schedule.s"),
            ({"schedule__s0": Float(2.0, 3.0)}, r"schedule.s0 can never be 2.0: schedule.s0 must be int"),
            ({"schedule__s0": Int(0, 2)}, r"schedule.s0 can never be 0: --schedule.s0 0 must be in \[1"),
            ({"distance__name": Categorical(["l2", "l3"])}, "distance.name cannot be 'l3'"),
            ({"optimizer__learning_rate": Float(-1e-3, 2e-3)}, "learning_rate can never be -0.001"),
            ({"batch_size": Categorical([64, 128, 0])}, "batch_size can never be 0: --batch-size must be"),
            ({"steps": Int(1, 10)}, r"steps is 900 in trial 0, and IntDistribution\(.*has no such value"),
            ({"steps": Int(1, 1000), "first": {"stepz": 3}}, "'stepz' is no parameter.*steps"),
            ({"steps": Int(1, 1000), "lines": ("stepz",)}, "'stepz' is no parameter.*steps"),
            ({"steps": Int(1, 1000), "minimize": ("cost",)}, r"minimizes \('score',\) or"),
            ({"seed": Int(0, 3)}, "seed is the same in all trials of a sweep"),
            ({"evaluation__samples": Int(100, 200)}, "evaluation.samples is the same in all trials"),
            ({"what": Named({"a": {"steps": 9}})}, "Trial 0 has no 'what'"),
            ({"what": Named({"a": {"stepz": 9}}), "first": {"what": "a"}}, "no setting 'stepz'"),
            ({"steps": Named({"a": {"steps": 9}})}, "bundles of settings need a name of their own"),
            ({"trial": Named({"a": {"steps": 9}})}, "'trial' is the number of a trial"),
            (
                {
                    "distance__name": Categorical(["l2", "pseudo-huber"]),
                    "distance__c": When({"distance.name": ("pseudo-huber",)}, Float(0.1, 1)),
                    "first": {"distance.name": "l2", "distance.c": 0.5},
                },
                "`first` has distance.c, which does not exist in trial 0",
            ),
            (
                {
                    "distance__name": Categorical(["l2", "pseudo-huber"]),
                    "distance__c": When({"distance.name": ("l1",)}, Float(0.1, 1)),
                    "first": {"distance.name": "l2"},
                },
                "distance.c can never be 0.1: no other parameters let it exist",
            ),
            (
                {"distance__c": When({"distance.nam": ("l2",)}, Float(0.1, 1))},
                "no setting 'distance.nam'.*distance.name",
            ),
            (
                {"distance__c": When({"distance.name": ("l1",)}, Float(0.1, 1))},
                "distance.c can never be 0.1: no other parameters let it exist",
            ),
            (
                {
                    "distance__c": When({"distance.name": ("pseudo-huber",)}, Float(0.1, 1)),
                    "distance__name": Categorical(["l2", "pseudo-huber"]),
                },
                "depends on distance.name, which must stand before it",
            ),
        ],
    )
    def test_when_loaded(self, entries, sentence):
        with pytest.raises(UserError, match=sentence):
            space(**entries).check()

    def test_what_only_others_make_wrong_is_no_error(self):
        space(schedule__s0=Int(2, 40), schedule__s1=Int(5, 60)).check()

    def test_choices_that_optuna_cannot_keep(self):
        with pytest.warns(UserWarning, match="is of type tuple"):
            choices = Categorical([(1, 2), (1,)])
        with pytest.raises(UserError, match=r"the choice \(1, 2\), which Optuna cannot keep"):
            space(network__channel_mult=choices).check()

    def test_what_rarely_exists_is_no_error(self):
        space(schedule__s1=Int(5, 1000), schedule__mu0=When({"schedule.s1": (150,)}, Float(0.5, 0.9))).check()

    def test_a_grid_of_continuous_values(self):
        with pytest.raises(UserError, match=r"optimizer.learning_rate is continuous: give it a step"):
            space(optimizer__learning_rate=Float(1e-3, 2e-3)).grid()


class TestConditions:
    def test_parameters_exist_where_they_should(self):
        CONDITIONAL.check()
        seen = set()
        for seed in range(100):
            params = CONDITIONAL.suggest(_Drawn(random.Random(seed), {}))
            assert ("distance.c" in params) == (params["distance.name"] == "pseudo-huber")
            assert ("schedule.mu0" in params) == (params["schedule"] == "constant")
            config = CONDITIONAL.config(params)
            assert config.distance.name == params["distance.name"]
            assert config.schedule.scales == params["schedule"]
            assert config.schedule.s1 == (8 if params["schedule"] == "constant" else BASE.schedule.s1)
            seen.add(tuple(params))
        assert len(seen) == 4

    def test_optuna_asks_the_same(self):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
        for _ in range(20):
            trial = study.ask()
            params = CONDITIONAL.suggest(trial)
            assert trial.params == params
            CONDITIONAL.config(params)

    def test_trial_0(self):
        assert CONDITIONAL.start() == {"distance.name": "l2", "schedule": "adaptive"}

    def test_a_condition_on_what_is_not_swept(self):
        one = space(schedule__mu0=When({"distance.name": ("l2",)}, Categorical([0.9, 0.5])))
        one.check()
        assert one.start() == {"schedule.mu0": 0.9}

    def test_the_grid_has_every_setting_once_and_trial_0_first(self):
        given = {"distance.name": ["l2", "l1"], "steps": [100, 200, 300]}
        one = space(distance__name=Categorical(["l1", "l2"]), steps=Int(100, 900, step=400), base=BASE)
        assert one.grid()[0] == {"distance.name": "l2", "steps": 900}
        assert len(one.grid()) == 6
        assert len({tuple(point.items()) for point in one.grid()}) == 6, given
        points = dataclasses.replace(
            CONDITIONAL, space={n: e for n, e in CONDITIONAL.space.items() if n != "distance.c"}
        ).grid()
        assert len(points) == 2 * (1 + 2)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_the_spaces_that_are_there(file):
    distils = load_teacher(file)
    one = load_space(file.stem, {"teacher.model": "a"} if distils else {})
    shape = (1, 8, 8) if one.base.data.path == "digits" else (3, 32, 32)
    one.check(fits=lambda config: check_fits(config.network, shape))
    start = one.config(one.start())
    assert one.question
    assert start.evaluation.extractor != "none"
    if "distance.c" not in one.first and "schedule" not in one.space:
        assert start == one.base, "trial 0 is the paper's setting"
    if one.sampler == "grid":
        assert len(one.grid()) >= 3
    if distils:
        with pytest.raises(UserError, match="Which teacher"):
            load_space(str(file), {})


def load_teacher(file):
    return "cd_" in file.stem


def test_trial_0_of_ict_is_the_preset_with_its_c_written_out():
    both = [("ict", recipes.ict_cifar10(), 3072), ("digits_ict", recipes.ict_digits(), 64)]
    for name, preset, size in both:
        start = load_space(name, {})
        assert start.start()["distance.c"] == pytest.approx(0.00054 * math.sqrt(size), rel=0.01)
        assert start.base.schedule == preset.schedule


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from cm_ray import recipes\nfrom cm_ray.sweeps.space import Int, Space\n"
        "SPACE = Space(question='?', base=recipes.ct_digits(), space={'steps': Int(10, 900)})\n"
    )
    assert load_space(str(file), {"batch_size": 8}).base == override(BASE, {"batch_size": 8})
    with pytest.raises(UserError, match=r"steps is 5 in trial 0"):
        load_space(str(file), {"steps": 5})
    with pytest.raises(UserError, match=r"There is no setting 'stepz'"):
        load_space(str(file), {"stepz": 5})
    file.write_text("SPACE = 3\n")
    with pytest.raises(UserError, match=r"mine.py has no SPACE = Space"):
        load_space(str(file), {})
    for broken, sentence in {
        "SPACE = (": r"mine.py: SyntaxError: .*line 1",
        "from cm_ray.sweeps.space import Int\nInt(5, 2)": r"mine.py: ValueError: .*low",
    }.items():
        file.write_text(broken)
        with pytest.raises(UserError, match=sentence):
            load_space(str(file), {})
    with pytest.raises(UserError, match=r"no search space 'cd_metrik'.*cd_metric"):
        load_space("cd_metrik", {})
