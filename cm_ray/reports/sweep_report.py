"""The report of a sweep: a table in Markdown and CSV, plots, and the best settings as a file."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from cm_ray.reports.sweep_pictures import RunOf, draw_pictures
from cm_ray.settings.tree import to_dict
from cm_ray.storage.files import write_json, written_aside
from cm_ray.sweeps.space import Named, Space
from cm_ray.sweeps.study import FAILED, SCORE, SCORES, STOPPED

_SURE = 0.95
"""Confidence level of the test of differences."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean difference between the scores of a setting and those of the best one, on the same seeds."""

    mean: float
    """Mean difference; above 0 the setting is worse."""
    error: float
    """Standard error of the mean difference."""
    significant: bool
    """True when Student's t-test of the paired differences rejects 0 at 95 %."""

    def __str__(self) -> str:
        """Return the difference as text, with a tilde in front when it may be chance."""
        return f"{'' if self.significant else '~ '}{self.mean:+.3g} ± {self.error:.2g}"


def behind(scores: Sequence[float], best: Sequence[float]) -> PairedDifference | None:
    """Compare the scores of a setting, by seed, with those of the best; None with fewer than two seeds."""
    gaps = [score - other for score, other in zip(scores, best, strict=False)]
    if len(gaps) < 2:
        return None
    mean, error = statistics.fmean(gaps), statistics.stdev(gaps) / math.sqrt(len(gaps))
    most = float(stats.t.ppf((1 + _SURE) / 2, len(gaps) - 1))
    return PairedDifference(mean, error, abs(mean) > most * error)


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the trial with the best score; None when no trial is complete."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return min(complete, key=lambda trial: trial.values[0], default=None)


def write_sweep_report(
    study: optuna.Study,
    ended: Sequence[FrozenTrial],
    space: Space,
    folder: Path,
    run_of: RunOf,
    *,
    seeds: int,
) -> list[Path]:
    """Write report.md, trials.csv, best.json and plots into the folder; return their paths.

    ended: the trials of the sweep that have ended.  best.json is a config for ``--config`` of the training
    jobs.
    """
    trials, best = _ranked(ended), best_trial(ended)
    files = [folder / "report.md", folder / "trials.csv"]
    if best is not None:
        config = replace(space.config(best.params), name=f"{space.base.name}-best", run_dir="")
        write_json(folder / "best.json", to_dict(config))
        files.append(folder / "best.json")
    pictures = draw_pictures(study, ended, space, folder, run_of, seeds=seeds)
    texts = [_markdown(space, trials, best, seeds, pictures), _csv(space, trials, best)]
    for file, text in zip(files, texts, strict=False):
        with written_aside(file) as aside:
            aside.write_text(text)
    return files + pictures


def sweep_note(
    ended: Sequence[FrozenTrial], space: Space, best: FrozenTrial | None, seeds: int, dashboard: str
) -> str:
    """Return a short description of a sweep in Markdown: the question, the best setting, the space.

    dashboard: the command that shows the study.
    """
    lines = [f"**{space.question}**", "", f"{len(ended)} trials. {_scored(best, seeds)}"]
    if best is not None:
        lines += ["", f"Best: trial {best.number}, {best.values[0]:.4g}. {_certainty(ended, best)}"]
    lines += ["", "| setting | best | values |", "|---|---|---|"]
    for name, values in space.space.items():
        chosen = _text(best.params.get(name, "")) if best is not None else ""
        lines.append(f"| `{name}` | {chosen} | {_tried(values)} |")
    return "\n".join([*lines, "", "The study:", "", "```bash", dashboard, "```"])


def _tried(values: Any) -> str:
    """Return the values of a parameter as text: names, choices, or a range."""
    if isinstance(values, Named):
        return ", ".join(values.values)
    if isinstance(values, CategoricalDistribution):
        return ", ".join(map(_text, values.choices))
    return f"{_text(values.low)} to {_text(values.high)}{', logarithmic' if values.log else ''}"


def _ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials sorted: finished ones by score, then stopped ones, latest first, then failed ones."""

    def rank(trial: FrozenTrial) -> tuple[int, float]:
        if trial.state == TrialState.COMPLETE:
            return 0, trial.values[0]
        if trial.state == TrialState.PRUNED:
            return 1, -trial.user_attrs.get(STOPPED, 0)
        return 2, trial.number

    return sorted(trials, key=rank)


def _markdown(
    space: Space,
    trials: Sequence[FrozenTrial],
    best: FrozenTrial | None,
    seeds: int,
    pictures: Sequence[Path],
) -> str:
    counts = {
        "finished": sum(trial.state == TrialState.COMPLETE for trial in trials),
        "stopped early": sum(trial.state == TrialState.PRUNED for trial in trials),
        "failed": sum(trial.state == TrialState.FAIL for trial in trials),
    }
    summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    lines = [f"# {space.question}", "", f"{len(trials)} trials: {summary}. {_scored(best, seeds)}", ""]
    lines += _table(space, trials, best)
    if best is not None:
        settings = " ".join(f"`{name}={value}`" for name, value in best.params.items())
        lines += ["", f"Best: trial {best.number}, {settings}. {_certainty(trials, best)}"]
    lines += ["", *(f"![{picture.stem}]({picture.name})" for picture in pictures), ""]
    return "\n".join(lines)


def _scored(best: FrozenTrial | None, seeds: int) -> str:
    if best is None or SCORE not in best.user_attrs:
        return "No score."
    row = best.user_attrs[SCORE]
    times = f"mean of {seeds} seeds ± standard error" if seeds > 1 else "one seed"
    return f"{row['name']}, sampler {row['key']['sampler']}, {times}; lower is better."


def _table(space: Space, trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> list[str]:
    objectives = [name for name in space.minimize if name != "score"]
    names = ["trial", "score", "±", "behind the best", *objectives, *space.space, ""]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for trial in trials:
        cells = [str(trial.number), *_cells(trial, best), *_costs(trial, objectives)]
        cells += [_text(trial.params.get(name, "")) for name in space.space]
        lines.append("| " + " | ".join([*cells, _fate(trial)]) + " |")
    return lines


def _cells(trial: FrozenTrial, best: FrozenTrial | None) -> list[str]:
    scores = trial.user_attrs.get(SCORES)
    if trial.state != TrialState.COMPLETE or not scores:
        return [_last_score(trial), "", ""]
    gap = behind(scores, best.user_attrs[SCORES]) if best is not None and trial is not best else None
    return [f"{trial.values[0]:.4g}", _error(scores), str(gap or "")]


def _error(scores: Sequence[float]) -> str:
    return f"{statistics.stdev(scores) / math.sqrt(len(scores)):.2g}" if len(scores) > 1 else ""


def _last_score(trial: FrozenTrial) -> str:
    curve = trial.intermediate_values
    return f"({curve[max(curve)]:.4g})" if curve else ""


def _costs(trial: FrozenTrial, objectives: Sequence[str]) -> list[str]:
    if trial.state != TrialState.COMPLETE:
        return [""] * len(objectives)
    return [f"{value:.3g}" for value in trial.values[1:]]


def _fate(trial: FrozenTrial) -> str:
    if trial.state == TrialState.PRUNED:
        return f"stopped at step {trial.user_attrs.get(STOPPED, 0)}"
    return str(trial.user_attrs.get(FAILED, "")).replace("|", "/")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _certainty(trials: Sequence[FrozenTrial], best: FrozenTrial) -> str:
    """Return a sentence that names the settings that are not significantly worse than the best."""
    others = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial is not best]
    gaps = {trial.number: behind(trial.user_attrs[SCORES], best.user_attrs[SCORES]) for trial in others}
    if not others:
        return "No other setting has finished."
    if all(gap is None for gap in gaps.values()):
        return "One seed does not show the variance; three seeds do."
    equal = [str(number) for number, gap in gaps.items() if gap is not None and not gap.significant]
    if not equal:
        return "All other finished settings are worse (t-tests of paired seeds, 95 % each)."
    return (
        f"It is not significantly better than {'trial' if len(equal) == 1 else 'trials'} {', '.join(equal)} "
        "(~; t-test of paired seeds, 95 %)."
    )


def _csv(space: Space, trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", *space.minimize, "scores", "stopped_at", "failed", *space.space])
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else [""] * len(space.minimize)
        told = [trial.user_attrs.get(name, "") for name in (STOPPED, FAILED)]
        scores = " ".join(map(str, trial.user_attrs.get(SCORES, [])))
        params = [trial.params.get(name, "") for name in space.space]
        writer.writerow([trial.number, trial.state.name.lower(), *values, scores, *told, *params])
    return text.getvalue()
