"""Scores: their names, their keys, and when they compare."""

import json

import pytest

from cm_ray.errors import UserError
from cm_ray.metrics.score import DESCRIBING, MEASURING, Score, better, comparable, frechet_score


class Fake:
    name, dim, weights_sha256, preprocess = "digits", 64, "ab" * 32, "none"


def score(value=1.0, **changes):
    settings = {
        "n": 1797,
        "seed": 0,
        "reference": "cd" * 32,
        "sampler": "one-step",
        "evaluations": 1,
    } | changes
    return frechet_score(value, Fake(), **settings)


def test_the_name_tells_what_it_is():
    assert score().name == "FD-digits-1797"
    assert score(sampler="heun:18", evaluations=35).metric == "FD-digits-1797/heun:18"


def test_a_row_is_json_and_comes_back():
    there = score(0.25, sampler="multistep@2.0,0.8", evaluations=3)
    back = Score.from_row(json.loads(json.dumps(there.to_row())))
    assert back == there
    assert set(there.key) == {*MEASURING, *DESCRIBING}


def test_lower_is_better_under_one_key():
    assert better(score(1.0), score(2.0))
    assert not better(score(2.0), score(2.0))
    two = [score(sampler=f"multistep@{tau}", evaluations=2) for tau in (0.8, 0.9)]
    assert comparable(*two)


@pytest.mark.parametrize("changes", [{"n": 5}, {"seed": 1}, {"reference": "x"}, {"evaluations": 2}])
def test_scores_of_different_keys_never_compare(changes):
    with pytest.raises(UserError, match=r"do not compare: .* is .* and "):
        better(score(), score(**changes))


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match="finite"):
        score(float("nan"))
    with pytest.raises(ValueError, match="not a row"):
        Score.from_row({"value": 1})
    with pytest.raises(ValueError, match="key has"):
        Score(value=1.0, key={})
    with pytest.raises(ValueError, match="has the key of FD-digits-1797"):
        Score.from_row(score().to_row() | {"name": "FID-50k"})
