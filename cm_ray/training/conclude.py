"""The end of a training, with its reports: chooses an average, exports it and scores it."""

from __future__ import annotations

from cm_ray.evaluation.conclusion import Conclusion
from cm_ray.evaluation.lengths import best_length
from cm_ray.reports.lengths_report import write_lengths


def conclude(conclusion: Conclusion) -> None:
    """Export the best average of the best checkpoint as the run's model, and score it; result.json is last.

    If there is a choice of lengths of averages, they are scored first. What is written is not repeated.
    """
    step, length = conclusion.best_step(), 0.0
    if scored := conclusion.choose_length(step):
        length = best_length(scored).length
        for path in write_lengths(conclusion.run, scored[0]):
            conclusion.say(f"{path}")
    conclusion.export(step, length)
    conclusion.score(step)
