"""Search spaces: what they refuse when they are loaded, and what a trial gets of them."""

import dataclasses
import math
import random

import optuna
import pytest

from cm_ray import recipes
from cm_ray.core.distance import L2, PseudoHuber
from cm_ray.core.schedules import Adaptive, Constant
from cm_ray.errors import UserError
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.networks.unet import check_fits
from cm_ray.recipes.methods import ECT, ICT
from cm_ray.recipes.sections import Adam, DataSettings, EvaluationSettings
from cm_ray.settings.choices import word_of
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Float, Int, Named, Space
from cm_ray.sweeps.space_checks import _Drawn, check_space
from cm_ray.sweeps.space_files import load_space
from cm_ray.sweeps.space_names import FOLDER

BASE = recipes.ct_digits()


def space(**entries):
    settings = {name: entries.pop(name) for name in ("first", "lines", "base", "minimize") if name in entries}
    names = {name.replace("__", "."): entry for name, entry in entries.items()}
    return Space(question="Which?", base=settings.pop("base", BASE), space=names, **settings)


CONDITIONAL = space(
    distance=Categorical(["l2", "pseudo-huber"]),
    distance__c=Float(1e-3, 1, log=True),
    schedule=Named(
        {
            "adaptive": {"times.scales": "adaptive", "target": "adaptive"},
            "constant": {"times.scales": Constant(9), "target": "constant"},
        }
    ),
    target__mu=Categorical([0.0, 0.9]),
)
OBJECTS = space(
    distance=Named({"LPIPS 64": LPIPS(size=64), "Huber": PseudoHuber(c=0.03), "squared": L2()}),
    distance__size=Categorical([64, 32]),
)


class TestRefused:
    @pytest.mark.parametrize(
        ("entries", "sentence"),
        [
            ({}, "needs at least one parameter"),
            ({"times__scales__s3": Int(2, 9)}, r"times.scales.s3 is not a setting: .*'times.scales.s"),
            ({"times__scales__n": Int(2, 9)}, r"n belongs to times.scales constant, and .* is adaptive\.$"),
            ({"rounds__s1": Int(8, 16)}, r"rounds.s1 belongs to method pd, and method is ct\.$"),
            (
                {"distance": Categorical(["l1", "l2"]), "distance__c": Float(0.1, 1)},
                r"^distance.c belongs to distance adaptive-l2 or pseudo-huber, and distance is l1\.$",
            ),
            (
                {"distance": Named({"squared": L2()}), "distance__c": Float(0.1, 1)},
                r"^distance.c belongs to distance adaptive-l2 or pseudo-huber, and distance is l2\.$",
            ),
            ({"times__scales__s0": Float(2.0, 3.0)}, r"s0 can never be 2.0: times.scales.s0 must be int"),
            ({"times__scales__s0": Int(0, 2)}, r"s0 can never be 0: times.scales.s0 0 must be in \[2"),
            ({"distance": Categorical(["l2", "l3"])}, "distance can never be 'l3': distance cannot be 'l3'"),
            ({"optimizer__learning_rate": Float(-1e-3, 2e-3)}, "learning_rate can never be -0.001"),
            ({"batch_size": Categorical([64, 128, 0])}, "batch_size can never be 0: batch_size must be"),
            ({"steps": Int(1, 10)}, r"steps is 900 in trial 0, and IntDistribution\(.*has no such value"),
            ({"steps": Int(1, 1000), "first": {"stepz": 3}}, "'stepz' is no parameter.*steps"),
            ({"steps": Int(1, 1000), "lines": ("stepz",)}, "'stepz' is no parameter.*steps"),
            ({"steps": Int(1, 1000), "minimize": ("cost",)}, r"minimizes \('score',\) or"),
            ({"seed": Int(0, 3)}, "seed is the same in all trials of a sweep"),
            ({"evaluation__samples": Int(100, 200)}, "evaluation.samples is the same in all trials"),
            ({"a": Named({"b": {"evaluation": EvaluationSettings()}})}, "evaluation is the same in all"),
            ({"a": Named({"b": {"data": DataSettings()}})}, "data is the same in all trials"),
            ({"what": Named({"a": {"steps": 9}})}, "Trial 0 has no 'what'"),
            ({"what": Named({"a": {"stepz": 9}}), "first": {"what": "a"}}, "stepz is not a setting"),
            ({"what": Named({"a": {}, "b": {"stepz": 9}})}, "what can never be 'b': stepz is not a setting"),
            (
                {"what": Named({"a": {}}), "steps": Int(1, 1000), "first": {"what": "aa"}},
                "what has no value 'aa': did you mean 'a'",
            ),
            ({"what": Named({"a": L2()})}, "what is not a setting"),
            (
                {"distance": Named({"a": L2(), "b": Adam()})},
                r"'b': distance cannot be Adam\(.*known are adaptive-l2",
            ),
            ({"distance": Named({"Huber": PseudoHuber(c=0.03)})}, "Trial 0 has no 'distance'"),
            ({"steps": Named({"a": {"steps": 9}})}, "bundles of settings need a name of their own"),
            ({"distance__c": Named({"a": {"steps": 9}})}, "bundles of settings need a name of their own"),
            ({"trial": Named({"a": {"steps": 9}})}, "'trial' is the number of a trial"),
            (
                {
                    "distance": Categorical(["l2", "pseudo-huber"]),
                    "distance__c": Float(0.1, 1),
                    "first": {"distance": "l2", "distance.c": 0.5},
                },
                "`first` has distance.c, which does not exist in trial 0",
            ),
            (
                {
                    "distance": Categorical(["l2", "pseudo-huber"]),
                    "distance__c": Float(0.1, 1),
                    "first": {"distance": "pseudo-huber"},
                },
                r"distance.c is 0.0 in trial 0, and FloatDistribution.*or give `first`",
            ),
            (
                {"distance__c": Float(0.1, 1), "distance": Categorical(["l2", "pseudo-huber"])},
                "distance.c exists beside some values of distance alone: put distance before it",
            ),
            (
                {
                    "target__mu": Float(0.1, 0.9),
                    "what": Named({"a": {}, "b": {"target": "constant"}}),
                },
                "target.mu exists beside some values of what alone: put what before it",
            ),
            (
                {"method": Categorical(["ct", "cd"])},
                "method can never be 'cd': teacher.model is missing",
            ),
        ],
    )
    def test_when_loaded(self, entries, sentence):
        with pytest.raises(UserError, match=sentence):
            check_space(space(**entries))

    def test_what_only_others_make_wrong_is_no_error(self):
        check_space(space(times__scales__s0=Int(2, 40), times__scales__s1=Int(5, 60)))

    def test_choices_that_optuna_cannot_keep(self):
        with pytest.warns(UserWarning, match="is of type tuple"):
            choices = Categorical([(1, 2), (1,)])
        with pytest.raises(UserError, match=r"the choice \(1, 2\), which Optuna cannot store: use `Named`"):
            check_space(space(network__channel_mult=choices))

    def test_what_rarely_exists_is_no_error(self):
        words = {
            f"l1 with batches of {size}": {"distance": "l1", "batch_size": size} for size in range(8, 200)
        }
        huber = {"Huber": {"distance": "pseudo-huber"}}
        check_space(space(what=Named({"base": {}, **words, **huber}), distance__c=Float(1e-3, 1)))

    def test_a_grid_of_continuous_values(self):
        with pytest.raises(UserError, match=r"optimizer.learning_rate is continuous: give it a step"):
            space(optimizer__learning_rate=Float(1e-3, 2e-3)).grid()


class TestConditions:
    def test_parameters_exist_where_their_class_is_chosen(self):
        check_space(CONDITIONAL)
        seen = set()
        for seed in range(100):
            params = CONDITIONAL.suggest(_Drawn(random.Random(seed), {}))
            assert ("distance.c" in params) == (params["distance"] == "pseudo-huber")
            assert ("target.mu" in params) == (params["schedule"] == "constant")
            config = CONDITIONAL.config(params)
            assert word_of(config.method.distance) == params["distance"]
            scales = Constant(9) if params["schedule"] == "constant" else Adaptive(s0=2, s1=10)
            assert config.method.times.scales == scales
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
        assert CONDITIONAL.start() == {"distance": "l2", "schedule": "adaptive"}
        other = dataclasses.replace(CONDITIONAL, first={"distance": "pseudo-huber", "distance.c": 0.5})
        assert other.start() == {"distance": "pseudo-huber", "distance.c": 0.5, "schedule": "adaptive"}
        assert other.config(other.start()).method.distance == PseudoHuber(c=0.5)

    def test_a_choice_that_is_not_swept(self):
        one = space(target__mu0=Categorical([0.9, 0.5]), base=override(BASE, {"distance": "l1"}))
        check_space(one)
        assert one.start() == {"target.mu0": 0.9}

    def test_conditions_in_several_levels(self):
        one = space(
            times=Categorical(["grid", "tuned"]),
            times__scales=Categorical(["adaptive", "constant"]),
            times__scales__n=Int(5, 9, step=4),
            times__q=Categorical([2.0, 4.0]),
            base=override(BASE, {"target": "constant"}),
        )
        check_space(one)
        assert one.start() == {"times": "grid", "times.scales": "adaptive"}
        assert [list(point.values()) for point in one.grid()] == [
            ["grid", "adaptive"],
            ["grid", "constant", 5],
            ["grid", "constant", 9],
            ["tuned", 2.0],
            ["tuned", 4.0],
        ]

    def test_the_grid_has_every_setting_once_and_trial_0_first(self):
        one = space(distance=Categorical(["l1", "l2"]), steps=Int(100, 900, step=400))
        assert one.grid()[0] == {"distance": "l2", "steps": 900}
        assert len(one.grid()) == 6
        assert len({tuple(point.items()) for point in one.grid()}) == 6
        points = dataclasses.replace(
            CONDITIONAL, space={n: e for n, e in CONDITIONAL.space.items() if n != "distance.c"}
        ).grid()
        assert len(points) == 2 * (1 + 2)


class TestObjects:
    def test_objects_and_fields_of_theirs(self):
        check_space(OBJECTS)
        assert OBJECTS.start() == {"distance": "squared"}
        assert [OBJECTS.config(point).method.distance for point in OBJECTS.grid()] == [
            L2(),
            LPIPS(size=64),
            LPIPS(size=32),
            PseudoHuber(c=0.03),
        ]

    def test_optuna_stores_their_names(self):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
        for point in OBJECTS.grid():
            study.enqueue_trial(point)
            trial = study.ask()
            assert OBJECTS.suggest(trial) == point
            assert trial.params == point

    def test_whole_methods(self):
        one = space(
            method=Named({"CT": BASE.method, "iCT": ICT, "ECT": ECT}),
            times__scales__s0=Categorical([2, 10]),
            times__q=Categorical([2.0, 4.0]),
        )
        check_space(one)
        assert one.start() == {"method": "CT", "times.scales.s0": 2}
        assert len(one.grid()) == 6
        assert one.config({"method": "iCT", "times.scales.s0": 10}).method == ICT
        assert one.config({"method": "ECT", "times.q": 4.0}).method == dataclasses.replace(
            ECT, times=dataclasses.replace(ECT.times, q=4.0)
        )

    def test_values_that_are_no_scalars(self):
        one = space(network__channel_mult=Named({"two": (1, 2), "three": (1, 2, 2)}))
        check_space(one)
        assert one.start() == {"network.channel_mult": "two"}
        assert one.config({"network.channel_mult": "three"}).network.channel_mult == (1, 2, 2)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_the_spaces_that_are_there(file):
    distils = load_teacher(file)
    one = load_space(file.stem, {"teacher.model": "a"} if distils else {})
    shape = (1, 8, 8) if one.base.data.path == "digits" else (3, 32, 32)
    check_space(one, fits=lambda config: check_fits(config.network, shape))
    start = one.config(one.start())
    assert one.question
    assert start.evaluation.extractor != "none"
    if "distance.c" not in one.first:
        assert start == one.base, "trial 0 is the paper's setting"
    if one.sampler == "grid":
        assert len(one.grid()) >= 3
    if distils:
        with pytest.raises(UserError, match=r"teacher\.model is missing"):
            load_space(str(file), {})


def load_teacher(file):
    return "cd_" in file.stem


def test_trial_0_of_ict_is_the_recipe_with_its_c_written_out():
    both = [("ict", recipes.ict_cifar10(), 3072), ("digits_ict", recipes.ict_digits(), 64)]
    for name, recipe, size in both:
        start = load_space(name, {})
        assert start.start()["distance.c"] == pytest.approx(0.00054 * math.sqrt(size), rel=0.01)
        assert start.base == recipe if name == "ict" else start.base.method == recipe.method


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from cm_ray import recipes\nfrom cm_ray.sweeps.space import Int, Space\n"
        "SPACE = Space(question='?', base=recipes.ct_digits(), space={'steps': Int(10, 900)})\n"
    )
    assert load_space(str(file), {"batch_size": 8}).base == override(BASE, {"batch_size": 8})
    with pytest.raises(UserError, match=r"steps is 5 in trial 0"):
        load_space(str(file), {"steps": 5})
    with pytest.raises(UserError, match="stepz is not a setting: did you mean 'steps'"):
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
