"""A comparison of methods by score and cost, as the table and figure of a paper: Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cm_ray.extras import needs
from cm_ray.metrics.score import Score
from cm_ray.storage.files import written_aside

_FEW = (1, 2, 4, 8)
"""Numbers of evaluations of the columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The result of one sampler of one training of a method."""

    method: str
    """Name in the table, such as CD, PD, EDM (Heun)."""
    seed: int
    """Seed of the training."""
    score: dict[str, Any]
    """A row of a `Score`, with its key."""
    noise_distance: float
    """The same distance for clipped Gaussian noise, as a scale."""
    evaluations: float
    """Mean number of network evaluations of a sample."""
    seconds_per_1000: float
    """Seconds in which one actor samples 1,000 images."""
    training_s: float | None
    """Training time of the method in seconds, without its teacher's; None when it is not known."""
    steps: int
    """Training steps."""
    bits_per_dim: float | None = None
    """Mean likelihood of images under the model; None when it has not been computed."""

    @property
    def sampler(self) -> str:
        """The text of the sampler."""
        return str(self.score["key"]["sampler"])

    @property
    def value(self) -> float:
        """The value of the score; lower is better."""
        return Score.from_row(self.score).value

    @property
    def error(self) -> float | None:
        """The standard error of the score over samples."""
        return Score.from_row(self.score).error

    def to_row(self) -> dict[str, Any]:
        """Return the cell as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Line:
    """The cells of one sampler of a method, of one or more trainings."""

    cells: tuple[Cell, ...]

    @property
    def method(self) -> str:
        return self.cells[0].method

    @property
    def evaluations(self) -> float:
        return statistics.fmean(cell.evaluations for cell in self.cells)

    @property
    def value(self) -> float:
        return statistics.fmean(cell.value for cell in self.cells)

    @property
    def error(self) -> float | None:
        """The standard error over trainings; of one training, that over its samples."""
        return _error([cell.value for cell in self.cells], self.cells[0].error)

    @property
    def written(self) -> str:
        return _with_error(self.value, self.error)

    def mean(self, of: Callable[[Cell], float | None], form: str) -> str:
        """Return the mean of a number of the cells in a form; empty when a cell does not know it."""
        values = [of(cell) for cell in self.cells]
        known = [value for value in values if value is not None]
        return form.format(statistics.fmean(known)) if len(known) == len(values) else ""


def write_comparison(cells: Sequence[Cell], stem: Path, *, title: str, note: str) -> list[Path]:
    """Write STEM.md, STEM.csv and STEM.png atomically; return their paths.

    Cells of one method and sampler are trainings with several seeds: their mean and its standard error are
    shown. note: a text below the tables that says how and on what machine the scores were measured.
    """
    lines = _lines_of(cells)
    texts = {".md": _markdown(lines, title, note), ".csv": _csv(cells)}
    for ending, text in texts.items():
        with written_aside(stem.with_suffix(ending)) as aside:
            aside.write_text(text)
    with written_aside(stem.with_suffix(".png")) as aside:
        _plot(lines, aside, title)
    return [stem.with_suffix(ending) for ending in (*texts, ".png")]


def _lines_of(cells: Sequence[Cell]) -> list[_Line]:
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.sampler), []).append(cell)
    return [_Line(tuple(each)) for each in found.values()]


def _error(values: Sequence[float], alone: float | None) -> float | None:
    return alone if len(values) == 1 else statistics.stdev(values) / math.sqrt(len(values))


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def _markdown(lines: Sequence[_Line], title: str, note: str) -> str:
    trainings = max(len(line.cells) for line in lines)
    how = f"standard errors over {trainings} trainings" if trainings > 1 else "standard errors over samples"
    return "\n".join(
        [
            f"# {title}",
            "",
            f"{lines[0].cells[0].score['name']} by network evaluations, with {how}; lower is better:",
            "",
            *_few_evaluations(lines),
            "",
            "All samplers:",
            "",
            *_all_samplers(lines),
            "",
            note,
            "",
        ]
    )


def _few_evaluations(lines: Sequence[_Line]) -> list[str]:
    """Return the table of methods with 1, 2, 4 or 8 evaluations; the others have no row in it."""
    rows: dict[str, dict[float, str]] = {}
    for line in lines:
        if line.evaluations in _FEW:
            rows.setdefault(line.method, {})[line.evaluations] = line.written
    head = [
        "| method | " + " | ".join(map(str, _FEW)) + " |",
        "|---|" + "---:|" * len(_FEW),
    ]
    return head + [
        f"| {method} | " + " | ".join(row.get(count, "") for count in _FEW) + " |"
        for method, row in rows.items()
    ]


def _all_samplers(lines: Sequence[_Line]) -> list[str]:
    head = [
        f"| method | sampler | NFE | {lines[0].cells[0].score['name']} | share of noise's "
        "| s per 1,000 images | bits/dim | steps | training | trainings |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return head + [
        f"| {line.method} | `{line.cells[0].sampler}` | {line.evaluations:.4g} | {line.written} "
        f"| {line.value / line.cells[0].noise_distance:.2%} "
        f"| {line.mean(lambda cell: cell.seconds_per_1000, '{:.2f}')} "
        f"| {line.mean(lambda cell: cell.bits_per_dim, '{:.2f}')} "
        f"| {line.mean(lambda cell: cell.steps, '{:.0f}')} "
        f"| {line.mean(lambda cell: cell.training_s, '{:.0f} s')} | {len(line.cells)} |"
        for line in lines
    ]


def _csv(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    columns = ("method", "seed", "sampler", "evaluations", "score", "value", "error", "noise")
    costs = ("seconds_per_1000", "training_s", "steps", "bits_per_dim")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *costs])
    for cell in cells:
        row = [cell.method, cell.seed, cell.sampler, cell.evaluations, cell.score["name"], cell.value]
        row += [cell.error, cell.noise_distance]
        writer.writerow(row + [getattr(cell, cost) for cost in costs])
    return text.getvalue()


def _plot(lines: Sequence[_Line], file: Path, title: str) -> None:
    """Draw score against evaluations, with a curve per method and a mark for a method of one sampler."""
    needs("matplotlib", extra="train")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.4, 5.4), dpi=150, layout="constrained")
    colours = pyplot.get_cmap("tab20")  # more methods than the default colours
    methods = list(dict.fromkeys(line.method for line in lines))
    for number, method in enumerate(methods):
        points = sorted(
            (line.evaluations, line.value, line.error or 0.0) for line in lines if line.method == method
        )
        nfe, values, errors = zip(*points, strict=True)
        style = "o-" if len(points) > 1 else "D"
        label = method if len(points) > 1 else f"{method}, NFE {nfe[0]:.4g}"
        axes.errorbar(
            nfe,
            values,
            yerr=errors,
            fmt=style,
            ms=4,
            lw=1.2,
            color=colours(number % colours.N),
            label=label,
        )
    axes.set_xscale("log", base=2)
    ticks = [2**k for k in range(math.ceil(math.log2(max(line.evaluations for line in lines))) + 1)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yscale("log")
    axes.set_xlabel("network evaluations per image")
    axes.set_ylabel(f"{lines[0].cells[0].score['name']} (lower is better)")
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(file, format="png")
    pyplot.close(figure)
