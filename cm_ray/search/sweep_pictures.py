"""Pictures of a sweep: history, importance, slices, Pareto front (Optuna's), and the paper's panel."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cm_ray.files import written_aside
from cm_ray.run_directory import RunDirectory
from cm_ray.search.space import Named, Space
from cm_ray.search.study import optuna_experiments

RunOf = Callable[[int, int], RunDirectory]
"""The run directory of a trial's number and a seed."""
_ENOUGH = 2
"""Finished trials that history, importance and slices need."""


def draw_pictures(
    study: optuna.Study,
    ended: Sequence[FrozenTrial],
    space: Space,
    folder: Path,
    run_of: RunOf,
    *,
    seeds: int,
) -> list[Path]:
    """Draw what there is enough to draw of, into the folder; return the paths of the pictures."""
    import matplotlib

    matplotlib.use("Agg")
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    pictures: dict[str, Callable[[], Any]] = {}
    if space.lines:
        pictures["panel"] = lambda: _panel(ended, space, run_of, seeds)
    if len(complete) >= _ENOUGH:
        pictures |= _optunas(study, space, complete)
    drawn = []
    for name, draw in pictures.items():
        with optuna_experiments():
            axes = draw()
        if axes is not None:
            drawn.append(_saved(axes, folder / f"{name}.png"))
    return drawn


def _optunas(study: optuna.Study, space: Space, complete: list[FrozenTrial]) -> dict[str, Callable[[], Any]]:
    from optuna.visualization import matplotlib as plots

    if len(space.minimize) > 1:
        names: list[str] = [*space.minimize]
        return {"pareto": lambda: plots.plot_pareto_front(study, target_names=names)}
    varied = [
        name for name in space.space if len({trial.params.get(name) for trial in complete} - {None}) > 1
    ]
    history = partial(plots.plot_optimization_history, study, target_name="score")
    pictures: dict[str, Callable[[], Any]] = {"history": history}
    if len(varied) > 1:  # of one parameter there is nothing to compare
        pictures["importance"] = lambda: plots.plot_param_importances(study, target_name="score")
    if varied:
        pictures["slices"] = lambda: _readable(plots.plot_slice(study, params=varied, target_name="score"))
    return pictures


def _readable(axes: Any) -> Any:
    """Turn the names of choices, which lie over each other."""
    for each in axes.flat if hasattr(axes, "flat") else [axes]:
        each.tick_params(axis="x", labelrotation=60)
    return axes


def _saved(axes: Any, file: Path) -> Path:
    """Save the figure of some axes, aside and renamed."""
    from matplotlib import pyplot

    first = axes.flat[0] if hasattr(axes, "flat") else axes
    figure = first.figure
    with warnings.catch_warnings(), written_aside(file) as aside:
        warnings.simplefilter("ignore")
        figure.savefig(aside, format="png", dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return file


def _panel(ended: Sequence[FrozenTrial], space: Space, run_of: RunOf, seeds: int) -> Any:
    """Draw score against training steps, a line a setting: the mean over seeds, and their range.

    Of trials that differ in other parameters, the best; dotted where it was stopped.
    Song et al. 2023, figure 3.
    """
    from matplotlib import pyplot
    from matplotlib.ticker import LogFormatter

    figure, axes = pyplot.subplots(figsize=(8, 4.4), layout="constrained")
    for number, (label, trial) in enumerate(_lines(ended, space).items()):
        curves = [_curve(run_of(trial.number, seed)) for seed in range(seeds)]
        steps = sorted(set().union(*curves))
        spread = {step: [curve[step] for curve in curves if step in curve] for step in steps}
        means = [statistics.fmean(values) for values in spread.values()]
        stopped = trial.state != TrialState.COMPLETE
        color = pyplot.get_cmap("tab20")((2 * number + number // 10) % 20)  # ten strong ones, then ten pale
        label += " (stopped)" if stopped else ""
        axes.plot(steps, means, ":" if stopped else "-", marker="o", markersize=3, color=color, label=label)
        low, high = ([end(values) for values in spread.values()] for end in (min, max))
        axes.fill_between(steps, low, high, alpha=0.15, color=color, linewidth=0)
    if not axes.lines:
        pyplot.close(figure)
        return None
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set_xlabel("training steps")
    axes.set_ylabel("score (lower is better)")
    axes.set_title(space.question, fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(True, which="both", alpha=0.3)
    return axes


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
    """Return a training's scores by step."""
    return {row["step"]: row["scores"][0]["value"] for row in run.read_metrics() if row.get("scores")}
