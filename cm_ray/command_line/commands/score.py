"""The command that scores a model or images."""

from __future__ import annotations

from cm_ray.cluster.evaluation.evaluate import evaluate
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.errors import plain, spoken
from cm_ray.evaluation.score_folder import table


def run(settings: Evaluation) -> None:
    """Score, and print the table of scores and the files."""
    directory, scores = evaluate(settings)
    print(table(scores))
    for path in (directory.root / "scores.json", *sorted(directory.samples.glob("*"))):
        print(plain(spoken(f"{path}")))
