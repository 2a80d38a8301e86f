"""Plots of a sweep: Optuna's history, importance and Pareto front, slices, and the panel of the paper."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cm_ray.extras import needs
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import written_aside
from cm_ray.sweeps.space import Named, Space
from cm_ray.sweeps.study import optuna_experiments

RunOf = Callable[[int, int], RunDirectory]
"""Function that returns the run directory of a trial's number and a seed."""
_ENOUGH, _TELLING = 2, 10
"""Finished trials that history and slices need, and that importance needs, which fits trees to them."""
_SLICES = 3
"""Plots in a row of slices."""
_LABEL = "score (lower is better)"


def draw_pictures(
    study: optuna.Study,
    ended: Sequence[FrozenTrial],
    space: Space,
    folder: Path,
    run_of: RunOf,
    *,
    seeds: int,
) -> list[Path]:
    """Draw the plots that there are enough trials for, into the folder; return their paths."""
    needs("matplotlib", extra="train")
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    pictures: dict[str, Callable[[], Any]] = {}
    if space.lines:
        pictures["panel"] = lambda: _panel(ended, space, run_of, seeds)
    if len(complete) >= _ENOUGH:
        pictures |= _optunas(study, space, complete)
        if len(space.minimize) == 1:
            pictures["slices"] = lambda: _slices(ended, space)
    drawn = []
    for name, draw in pictures.items():
        with optuna_experiments(), pyplot.style.context("default"):  # Optuna changes the style globally
            axes = draw()
        if axes is not None:
            drawn.append(_saved(axes, folder / f"{name}.png"))
    return drawn


def _optunas(study: optuna.Study, space: Space, complete: list[FrozenTrial]) -> dict[str, Callable[[], Any]]:
    from optuna.visualization import matplotlib as plots

    if len(space.minimize) > 1:
        names: list[str] = [*space.minimize]
        return {"pareto": lambda: plots.plot_pareto_front(study, target_names=names)}
    history = partial(plots.plot_optimization_history, study, target_name="score")
    pictures: dict[str, Callable[[], Any]] = {"history": history}
    if len(complete) >= _TELLING and len(_varied(space, complete)) > 1:
        pictures["importance"] = lambda: plots.plot_param_importances(study, target_name="score")
    return pictures


def _varied(space: Space, trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the names of the parameters that have had several values."""
    return [name for name in space.space if len({trial.params.get(name) for trial in trials} - {None}) > 1]


def _slices(ended: Sequence[FrozenTrial], space: Space) -> Any:
    """Draw score against each parameter: filled dots for finished trials, hollow ones for stopped trials.

    A stopped trial is drawn at its last score. Optuna's own slices leave out stopped trials, although most
    trials are stopped and show which values are bad.
    """
    from matplotlib import pyplot

    scored = [trial for trial in ended if trial.state != TrialState.FAIL and trial.intermediate_values]
    if not (names := _varied(space, scored)):
        return None
    columns, rows = min(_SLICES, len(names)), -(-len(names) // _SLICES)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(3 * columns + 1, 3.2 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, name in zip(grid.flat, names, strict=False):
        _slice(axes, name, scored)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(_LABEL, fontsize=9)
    figure.suptitle("filled: finished; hollow: stopped, at the last score", fontsize=9)
    return grid[0, 0]


def _slice(axes: Any, name: str, scored: Sequence[FrozenTrial]) -> None:
    trials = [trial for trial in scored if name in trial.params]
    distribution = trials[0].distributions[name]
    for state, filled in ((TrialState.COMPLETE, True), (TrialState.PRUNED, False)):
        points = [(trial.params[name], _score(trial)) for trial in trials if trial.state == state]
        x = [_place(distribution, value) for value, _ in points]
        face = "tab:blue" if filled else "none"
        axes.scatter(x, [score for _, score in points], s=24, facecolor=face, edgecolor="tab:blue")
    places, labels = _ticks(distribution)
    if getattr(distribution, "log", False):
        axes.set_xscale("log")
        axes.minorticks_off()
    long = max(map(len, labels)) > 40 // len(labels)
    turned = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(places, labels, fontsize=8, **turned)
    axes.set_xlabel(name, fontsize=9)
    _scale_scores(axes)


def _place(distribution: Any, value: Any) -> float:
    return float(distribution.choices.index(value) if hasattr(distribution, "choices") else value)


def _ticks(distribution: Any) -> tuple[list[float], list[str]]:
    """Return all choices, or the ends and the middle of a range, as positions and labels."""
    if hasattr(distribution, "choices"):
        return [float(i) for i in range(len(distribution.choices))], [
            str(each) for each in distribution.choices
        ]
    low, high = distribution.low, distribution.high
    places = [low, math.sqrt(low * high) if distribution.log else (low + high) / 2, high]
    return places, [f"{place:.3g}" for place in places]


def _score(trial: FrozenTrial) -> float:
    """Return the score of a trial; of a stopped one, the last score."""
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    return float(trial.intermediate_values[max(trial.intermediate_values)])


def _saved(axes: Any, file: Path) -> Path:
    """Save the figure of the given axes atomically."""
    from matplotlib import pyplot

    first = axes.flat[0] if hasattr(axes, "flat") else axes
    figure = first.figure
    with warnings.catch_warnings(), written_aside(file) as aside:
        warnings.simplefilter("ignore")
        figure.savefig(aside, format="png", dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return file


def _panel(ended: Sequence[FrozenTrial], space: Space, run_of: RunOf, seeds: int) -> Any:
    """Draw score against training steps with a line per setting: the mean over seeds, and their range.

    Among trials that differ in other parameters the best one is drawn, with dots where it was stopped. Song
    et al. 2023, figure 3.
    """
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.4), layout="constrained")
    for number, (label, trial) in enumerate(_lines(ended, space).items()):
        curves = [_curve(run_of(trial.number, seed)) for seed in range(seeds)]
        steps = sorted(set().union(*curves))
        spread = {step: [curve[step] for curve in curves if step in curve] for step in steps}
        means = [statistics.fmean(values) for values in spread.values()]
        stopped = trial.state != TrialState.COMPLETE
        color = pyplot.get_cmap("tab20")(
            (2 * number + number // 10) % 20
        )  # ten strong colours, then ten pale ones
        label += " (stopped)" if stopped else ""
        axes.plot(steps, means, ":" if stopped else "-", marker="o", markersize=3, color=color, label=label)
        low, high = ([end(values) for values in spread.values()] for end in (min, max))
        axes.fill_between(steps, low, high, alpha=0.15, color=color, linewidth=0)
    if not axes.lines:
        pyplot.close(figure)
        return None
    _scale_scores(axes)
    axes.set_xlabel("training steps")
    axes.set_ylabel(_LABEL)
    axes.set_title(space.question, fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return axes


def _scale_scores(axes: Any) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.grid(True, which="both", alpha=0.3)


def _lines(ended: Sequence[FrozenTrial], space: Space) -> dict[str, FrozenTrial]:
    """Return the best trial of each line, in the order of the first trials."""
    lines: dict[str, FrozenTrial] = {}
    for trial in ended:
        if trial.state == TrialState.FAIL:
            continue
        values = {name: trial.params[name] for name in space.lines if name in trial.params}
        label = ", ".join(
            str(value) if isinstance(space.space[name], Named) else f"{name} = {value}"
            for name, value in values.items()
        )
        if label not in lines or _merit(trial) < _merit(lines[label]):
            lines[label] = trial
    return lines


def _merit(trial: FrozenTrial) -> tuple[int, float]:
    if trial.state == TrialState.COMPLETE:
        return 0, trial.values[0]
    return 1, -max(trial.intermediate_values, default=0)


def _curve(run: RunDirectory) -> dict[int, float]:
    """Return the scores of a training by step."""
    return {row["step"]: row["scores"][0]["value"] for row in run.read_metrics() if row.get("scores")}
