"""What a search for time points found: rows as JSON, a table, and every evaluation in a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cm_ray.extras import needs
from cm_ray.storage.files import written_aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One measurement during the search."""

    stage: int
    """Number of the stage that it belongs to, from 1."""
    points: tuple[int, ...]
    """Ascending indices on the grid."""
    taus: tuple[float, ...]
    """Their times, descending."""
    first: int
    """Index of the first sample."""
    samples: int
    value: float
    """The score; lower is better."""
    error: float
    """Its standard error, unpaired: differences of evaluations on the same samples are far surer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A stage: the search for one point while the others stay."""

    stage: int
    evaluations: int
    """Network evaluations of the samplers that were searched: one more than time points."""
    left: int
    right: int
    """Candidates, on the grid, both included."""
    best: int
    """The winner."""
    tau: float
    """Its time."""
    taus: tuple[float, ...]
    """All time points after the stage, descending."""
    refined: bool
    """Whether the point had a place before."""
    spent: int
    """Samples taken."""
    fixed: int
    """Samples that OpenAI's ternary search would have taken, which gives each candidate the whole budget."""
    rounds: int
    """Batches, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A difference of two scores on the same noise: worse, if above 0."""

    mean: float
    error: float
    """Its standard error, of samples that pair."""

    @property
    def clear(self) -> bool:
        """Whether it is worse beyond doubt: by more than two standard errors."""
        return self.mean > 2 * self.error

    def __str__(self) -> str:
        """Say it as a number."""
        return f"{self.mean:.3g} ± {self.error:.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The time points for a number of evaluations, measured on noise that the search has not seen."""

    evaluations: int
    taus: tuple[float, ...]
    """Descending."""
    ts: str
    """The same as OpenAI's --ts."""
    score: dict[str, Any]
    """A row of a `Score`."""
    karras_taus: tuple[float, ...]
    """The inner points of a Karras grid, which would be taken without a search."""
    karras_value: float
    """Their score on the same noise."""
    kept: tuple[float, ...]
    """Which of the two the model gets: those of the better score, the found ones if they are equal."""
    over_karras: Gap
    """The found points' score less a Karras grid's."""
    over_fewer: Gap | None
    """The kept points' score less the best one with fewer evaluations; None where there are no fewer."""

    @property
    def doubts(self) -> list[str]:
        """Return a sentence for each way in which the found points do not help."""
        sentences, name = [], f"{self.evaluations} evaluations"
        if self.kept != self.taus:
            how = "clearly worse" if self.over_karras.clear else "no better"
            sentences.append(
                f"{name}: the points found score {how} than a Karras grid's (by {self.over_karras}), "
                "which the model gets instead."
            )
        if self.over_fewer and self.over_fewer.clear:
            sentences.append(
                f"{name} score clearly worse than fewer do (by {self.over_fewer}): more steps do not help."
            )
        return sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a search found."""

    model: str
    grid: int
    """Boundaries of the Karras grid."""
    placed: tuple[Placed, ...]
    evaluated: tuple[Evaluated, ...]
    chosen: tuple[Chosen, ...]
    note: str
    """How it was searched."""

    @property
    def spent(self) -> int:
        """Samples taken by all stages."""
        return sum(placed.spent for placed in self.placed)

    @property
    def fixed(self) -> int:
        """Samples that OpenAI's ternary search would have taken."""
        return sum(placed.fixed for placed in self.placed)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "samples": {"spent": self.spent, "fixed_size_ternary": self.fixed}}

    def write(self, stem: Path) -> list[Path]:
        """Write STEM.md, STEM.csv (every evaluation) and STEM.png, aside and renamed; return them."""
        texts = {".md": self.markdown(), ".csv": _csv(self.evaluated)}
        for ending, text in texts.items():
            with written_aside(stem.with_suffix(ending)) as aside:
                aside.write_text(text)
        with written_aside(stem.with_suffix(".png")) as aside:
            _plot(self, aside)
        return [stem.with_suffix(ending) for ending in (*texts, ".png")]

    def markdown(self) -> str:
        """Return the table of the chosen points, and what the search cost."""
        name = self.chosen[0].score["name"]
        lines = [
            f"# Time points of {self.model}",
            "",
            f"| evaluations | time points | `--ts`, `--boundaries {self.grid}` | {name} | ± "
            "| of a Karras grid |",
            "|---:|---|---|---:|---:|---:|",
        ]
        for chosen in self.chosen:
            points = ", ".join(f"{tau:.4g}" for tau in chosen.taus) or "-"
            lines.append(
                f"| {chosen.evaluations} | {points} | `{chosen.ts}` | {chosen.score['value']:.4g} "
                f"| {chosen.score['error']:.2g} | {chosen.karras_value:.4g} |"
            )
        cost = (
            f"{self.spent:,} samples in {sum(placed.rounds for placed in self.placed)} rounds, "
            f"{self.spent / self.fixed:.1%} of the {self.fixed:,} of the ternary search that gives each "
            "candidate the whole budget."
        )
        doubts = [sentence for chosen in self.chosen for sentence in chosen.doubts]
        return "\n".join([*lines, "", cost, "", " ".join([self.note, *doubts]), ""])


def _csv(evaluated: Sequence[Evaluated]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "points", "taus", "first", "samples", "value", "error"])
    for row in evaluated:
        points, taus = (" ".join(map(str, numbers)) for numbers in (row.points, row.taus))
        writer.writerow([row.stage, points, taus, row.first, row.samples, row.value, row.error])
    return text.getvalue()


def _plot(report: Report, file: Path) -> None:
    """Draw a panel for each stage: score against the time that was searched, every evaluation a dot.

    A line joins evaluations on the same samples, which alone compare: fewer have a greater distance. Fresh
    samples are those of the confirmation.
    """
    needs("matplotlib", extra="train")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages = [placed for placed in report.placed if _rows(report, placed)]
    columns = min(3, max(1, len(stages)))
    rows = -(-len(stages) // columns) or 1
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(4.6 * columns, 3.6 * rows), dpi=130, layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(stages) :]:
        axes.set_axis_off()
    for axes, placed in zip(grid.flat, stages, strict=False):
        _panel(axes, placed, _rows(report, placed))
    for row in grid:
        row[0].set_ylabel("score (lower is better)")
    figure.suptitle(f"Search for time points of {report.model}")
    figure.savefig(file, format="png")
    pyplot.close(figure)


def _rows(report: Report, placed: Placed) -> list[Evaluated]:
    return [row for row in report.evaluated if row.stage == placed.stage]


def _panel(axes: Any, placed: Placed, rows: Sequence[Evaluated]) -> None:
    place = placed.taus.index(placed.tau)
    series = sorted({(row.first > 0, row.samples) for row in rows})
    for number, (fresh, samples) in enumerate(series):
        own = [row for row in rows if (row.first > 0, row.samples) == (fresh, samples)]
        own.sort(key=lambda row: row.taus[place])
        axes.errorbar(
            [row.taus[place] for row in own],
            [row.value for row in own],
            yerr=[row.error for row in own],
            color=f"C{number % 10}",
            marker="s" if fresh else "o",
            linestyle=":" if fresh else "-",
            markersize=4,
            linewidth=0.8,
            elinewidth=0.6,
            label=f"{samples:,}" + (" fresh" if fresh else ""),
        )
    axes.legend(title="samples", fontsize=7, title_fontsize=7)
    axes.axvline(placed.tau, color="tab:red", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("time point t")
    what = "refined" if placed.refined else "placed"
    others = [f"{tau:.3g}" for tau in placed.taus if tau != placed.tau]
    beside = f" beside {', '.join(others)}" if others else ""
    axes.set_title(
        f"{placed.evaluations} evaluations: {placed.tau:.3g} {what}{beside}\n{placed.spent:,} samples",
        fontsize=9,
    )
    axes.grid(True, which="both", alpha=0.3)
