"""Scores: their names, their keys, and when they compare."""

import json

import pytest

from cm_ray.errors import UserError
from cm_ray.metrics.estimate import Estimate
from cm_ray.metrics.extractors.published_weights import INCEPTION_2015
from cm_ray.metrics.score import (
    COMPARED,
    DESCRIPTIVE,
    KINDS,
    Score,
    better,
    comparable,
    score_from_estimate,
    score_key,
)
from tests.results import score


def test_the_name_tells_what_it_is():
    assert score().name == "FD-digits-1797"
    assert score(sampler="heun:18", nfe=35).metric == "FD-digits-1797/heun:18"


def test_a_row_is_json_and_comes_back():
    there = score(0.25, sampler="multistep@2.0,0.8", nfe=3)
    back = Score.from_row(json.loads(json.dumps(there.to_row())))
    assert back == there
    assert set(there.key) == {*COMPARED, *DESCRIPTIVE}


def test_lower_is_better_under_one_key():
    assert better(score(1.0), score(2.0))
    assert not better(score(2.0), score(2.0))
    two = [score(sampler=f"multistep@{tau}", nfe=2) for tau in (0.8, 0.9)]
    assert comparable(*two)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 5},
        {"seed": 1},
        {"reference": "x"},
        {"labels": "balanced"},
        {"nfe": 2},
        {"precision": "tf32"},
    ],
)
def test_scores_of_different_keys_never_compare(changes):
    with pytest.raises(UserError, match=r"do not compare: .* is .* and "):
        better(score(), score(**changes))


def test_models_without_classes_compare_with_those_that_draw_them_as_in_the_data():
    plain, drawn, balanced = (score(labels=labels) for labels in ("none", "data", "balanced"))
    assert plain.key["labels"] == "none"
    assert comparable(plain, drawn)
    assert not comparable(plain, balanced)


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match="finite"):
        score(float("nan"))
    for error in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="error must be finite"):
            of_kind("IS", error=error)
    with pytest.raises(ValueError, match="error must be a number, not nan"):
        Score.from_row(of_kind("IS").to_row() | {"error": float("nan")})
    with pytest.raises(ValueError, match="not the row"):
        Score.from_row({"value": 1})
    with pytest.raises(ValueError, match="key must have"):
        Score(value=1.0, key={})
    with pytest.raises(ValueError, match="has the key of FD-digits-1797"):
        Score.from_row(score().to_row() | {"name": "FID-50k"})
    with pytest.raises(ValueError, match="a score is one of FD"):
        of_kind("FID")


def of_kind(kind, value=1.0, error=0.1, **settings):
    return score_from_estimate(kind, Estimate(value=value, error=error, settings=settings), score().key)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("KID", "KID-digits-1797"),
        ("IS", "IS-digits-1797"),
        ("precision", "precision-digits-1797"),
        ("recall", "recall-digits-1797"),
        ("FDinf", "FDinf-digits-1797"),
        ("SWD", "SWD-digits-1797"),
    ],
)
def test_every_kind_has_its_name_and_comes_back_from_its_row(kind, name):
    there = of_kind(kind, block=50)
    row = json.loads(json.dumps(there.to_row()))
    assert row["name"] == there.name == name
    assert (row["error"], row["settings"]) == (0.1, {"block": 50})
    assert Score.from_row(row) == there


@pytest.mark.parametrize("kind", KINDS)
def test_better_respects_the_direction(kind):
    low, high = of_kind(kind, 1.0), of_kind(kind, 2.0)
    assert better(low, high) == (kind not in ("IS", "precision", "recall"))
    assert better(high, low) != better(low, high)
    assert not better(low, low)


def test_scores_of_different_kinds_or_settings_never_compare():
    with pytest.raises(UserError, match="kind is KID and IS"):
        better(of_kind("KID"), of_kind("IS"))
    with pytest.raises(UserError, match=r"settings is \{'block': 50\} and \{'block': 60\}"):
        better(of_kind("KID", block=50), of_kind("KID", block=60))
    assert comparable(of_kind("KID", error=0.1), of_kind("KID", error=0.2))


def test_rows_from_before_there_were_kinds_are_frechet_distances():
    row = score(0.25).to_row()
    old = {entry: row[entry] for entry in ("name", "value", "key")}
    assert Score.from_row(old) == score(0.25)


class Published:
    name, dim, weights_sha256 = "inception-2015", 2048, INCEPTION_2015.sha256
    preprocess = "legacy_tensorflow: 299x299"


def published_score(n=50_000, reference="cd" * 32, labels="data", **changes):
    extractor = type("Changed", (Published,), changes)
    key = {"seed": 0, "labels": labels, "sampler": "one-step", "nfe": 1}
    return Score(value=1.0, key=score_key(extractor, n=n, reference=reference, **key))


def test_fid_50k_is_one():
    assert published_score().name == "FID-50k"
    assert published_score().metric == "FID-50k/one-step"
    assert published_score(preprocess="clean: 299x299").name == "FID-50k"
    assert published_score(labels="balanced").name == "FID-50k"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"n": 49_999}, "FD-inception-2015-49999"),
        ({"weights_sha256": "0" * 64}, "FD-inception-2015-50000"),
        ({"preprocess": "nearest"}, "FD-inception-2015-50000"),
        ({"reference": ""}, "FD-inception-2015-50000"),
        ({"labels": "cat,dog"}, "FD-inception-2015-50000"),
        ({"name": "random-inception"}, "FD-random-inception-50000"),
    ],
)
def test_what_is_no_fid_50k_is_not_named_so(changes, name):
    assert published_score(**changes).name == name


def test_other_kinds_are_no_fid():
    key = published_score().key
    assert score_from_estimate("KID", Estimate(value=1.0, error=0.1), key).name == "KID-inception-2015-50000"
