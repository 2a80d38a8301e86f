"""The report says of found time points whether they help, and which of them a model gets."""

import pytest

from cm_ray.reports.time_points_report import (
    ChosenPoints,
    ScoredCandidate,
    ScoreDifference,
    StageReport,
    TimePointsReport,
)


def chosen(nfe=2, kept=(2.0,), default=(-1.0, 0.1), fewer=(-1.0, 0.1)):
    gap, less = (ScoreDifference(mean=mean, error=error) for mean, error in (default, fewer))
    return ChosenPoints(
        nfe=nfe,
        taus=(2.0,),
        ts="0,3,9",
        score={"name": "FD-digits-320", "value": 5.0, "error": 0.3},
        default_taus=(2.5,),
        default_value=5.0 - gap.mean,
        kept=kept,
        over_default=gap,
        over_fewer=less,
    )


@pytest.mark.parametrize(
    ("what", "sentences"),
    [
        ({}, []),
        ({"default": (0.0, 0.0), "fewer": (0.1, 0.1)}, []),
        (
            {"kept": (2.5,), "default": (0.1, 0.1)},
            [
                "NFE 2: the points found score no better than the default ones (by 0.1 ± 0.1), "
                "which the model gets instead."
            ],
        ),
        (
            {"kept": (2.5,), "default": (0.3, 0.1), "fewer": (0.5, 0.2)},
            [
                "NFE 2: the points found score clearly worse than the default ones (by 0.3 ± 0.1), "
                "which the model gets instead.",
                "NFE 2: the score is clearly worse than with fewer (by 0.5 ± 0.2); more steps do not help.",
            ],
        ),
    ],
)
def test_points_that_do_not_help_are_told(what, sentences):
    one = chosen(**what)
    assert one.doubts == sentences
    placed = StageReport(
        **{"stage": 1, "nfe": 2, "left": 1, "right": 8, "best": 3, "tau": 2.0, "taus": (2.0,)},
        **{"refined": False, "spent": 80, "fixed": 320, "rounds": 1},
    )
    row = ScoredCandidate(stage=1, points=(3,), taus=(2.0,), first=0, samples=80, value=5.0, error=0.3)
    report = TimePointsReport(
        model="tiny", grid=10, placed=(placed,), evaluated=(row,), chosen=(one,), note="Searched smooth."
    )
    assert report.markdown().splitlines()[-1] == " ".join(["Searched smooth.", *sentences])
    assert report.to_dict()["chosen"][0]["over_default"]["mean"] == one.over_default.mean
