"""The end of a training, with its reports: chooses an average, exports it and scores it."""

from __future__ import annotations

from cm_ray.evaluation.conclusion import Conclusion, Generate
from cm_ray.evaluation.lengths import Measure, best_length
from cm_ray.reports.lengths_report import write_lengths
from cm_ray.storage.files import remove


def conclude(conclusion: Conclusion, measure: Measure, generate: Generate) -> None:
    """Export the best average of the best checkpoint as the run's model, and score it; result.json is last.

    measure: samples the averages of several lengths, if there is a choice. generate: samples the run's model.
    What is written already is not repeated.
    """
    step, length = conclusion.best_step(), 0.0
    if scored := conclusion.choose_length(step, measure):
        length = best_length(scored).length
        for path in write_lengths(conclusion.run, scored[0]):
            conclusion.say(f"{path}")
    remove(conclusion.run.averages_work)
    conclusion.export(step, length)
    conclusion.score(step, generate)
