"""The table and the plot of scored lengths."""

import matplotlib.image
import numpy as np

from cm_ray.evaluation.lengths import ScoredLength
from cm_ray.metrics.score import Score
from cm_ray.reports.lengths_report import lengths_table, write_lengths
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import write_json
from tests.tracking.tracked_runs import score


def scored(length, value, influence, fit_error=0.0, **key):
    made = score(value, n=400, seed=4, **key)
    with_error = Score(value=made.value, key=made.key, error=0.02)
    return ScoredLength(
        length=length, step=900, fit_error=fit_error, score=with_error, influence=tuple(influence)
    )


ROWS = [
    scored(0.2, 1.25, [4.0, -4.0] * 10, fit_error=0.0236),
    scored(0.05, 0.9, [2.0, -2.0] * 10),
    scored(0.1, 0.84, [3.0, -3.0] * 10),
]


def test_the_table_compares_with_the_best():
    """The error of a difference is of the sums' differences: sqrt(20/19 · 20 · 1²) / 400 = 0.0115."""
    lines = lengths_table(ROWS).splitlines()
    assert lines[0] == "Averages of step 900, 400 samples by `one-step` with seed 4:"
    assert lines[4:] == [
        "| 0.2 | 1.25 | 0.02 | 0.41 | 0.011 | 2.36% |",
        "| 0.05 | 0.9 | 0.02 | 0.06 | 0.011 | 0.00% |",
        "| **0.1** | **0.84** | 0.02 | | | 0.00% |",
    ]
    assert {line.count("|") for line in lines[2:]} == {7}


def test_the_files_have_all_lengths_that_were_scored_alike(tmp_path):
    """Scores on other noise, or of another step, are another table."""
    run = RunDirectory(tmp_path)
    others = [scored(0.03, 0.1, [0.0, 0.0], sampler="multistep@2.0"), ROWS[0]]
    write_json(run.averages_file, [each.to_row() for each in [*others, *ROWS[1:]]])
    table, plot = write_lengths(run, ROWS[1])
    assert [line.split(" | ")[0].strip("| *") for line in table.read_text().splitlines()[4:]] == [
        *("0.05", "0.1", "0.2")
    ]
    picture = matplotlib.image.imread(plot)
    assert picture.shape[0] > 400
    assert float(np.ptp(picture[..., :3])) == 1
