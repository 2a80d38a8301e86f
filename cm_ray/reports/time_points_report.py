"""The report of a search for time points: JSON, a table, and a plot of every score that was computed."""

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
class ScoredCandidate:
    """One score that was computed during the search."""

    stage: int
    """Number of its stage, from 1."""
    points: tuple[int, ...]
    """Ascending indices on the grid."""
    taus: tuple[float, ...]
    """Their times, descending."""
    first: int
    """Index of the first sample."""
    samples: int
    """Number of samples."""
    value: float
    """The score; lower is better."""
    error: float
    """Unpaired standard error; differences between scores on the same samples have a much smaller error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """A stage: the search for one point while the other points stay fixed."""

    stage: int
    """Number of the stage, from 1."""
    nfe: int
    """Number of network evaluations of the samplers: one more than time points."""
    left: int
    """Lowest candidate, as an index on the grid."""
    right: int
    """Highest candidate, as an index on the grid."""
    best: int
    """The winner."""
    tau: float
    """Time of the winner."""
    taus: tuple[float, ...]
    """All time points after the stage, descending."""
    refined: bool
    """True when the point had a place before this stage."""
    spent: int
    """Number of samples taken."""
    fixed: int
    """Number of samples of OpenAI's ternary search, which gives each candidate the full budget."""
    rounds: int
    """Number of batches that were sampled one after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDifference:
    """The difference of two scores on the same noise; above 0 means worse."""

    mean: float
    """The difference."""
    error: float
    """Its standard error, from paired samples."""

    @property
    def clear(self) -> bool:
        """True when the difference is above 0 by more than two standard errors."""
        return self.mean > 2 * self.error

    def __str__(self) -> str:
        """Return the difference and its error as text."""
        return f"{self.mean:.3g} ± {self.error:.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPoints:
    """The time points for a given NFE, scored on noise that the search has not used."""

    nfe: int
    """Number of network evaluations per sample."""
    taus: tuple[float, ...]
    """Times of the points, descending."""
    ts: str
    """The points as OpenAI's --ts."""
    score: dict[str, Any]
    """A row of a `Score`."""
    default_taus: tuple[float, ...]
    """The points that are used without a search: those of a Karras grid, or the equal steps of jumps."""
    default_value: float
    """Their score on the same noise."""
    kept: tuple[float, ...]
    """The points that the model gets: those with the better score, the found ones in a tie."""
    over_default: ScoreDifference
    """Score of the found points minus that of the default ones."""
    over_fewer: ScoreDifference | None
    """Score of the kept points minus the best score with a lower NFE; None for the lowest NFE."""

    @property
    def doubts(self) -> list[str]:
        """A sentence for each way in which the found points do not help."""
        sentences, name = [], f"NFE {self.nfe}"
        if self.kept != self.taus:
            how = "clearly worse" if self.over_default.clear else "no better"
            sentences.append(
                f"{name}: the points found score {how} than the default ones (by {self.over_default}), "
                "which the model gets instead."
            )
        if self.over_fewer and self.over_fewer.clear:
            sentences.append(
                f"{name}: the score is clearly worse than with fewer (by {self.over_fewer}); "
                "more steps do not help."
            )
        return sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePointsReport:
    """The whole report of a search."""

    model: str
    """The model, as given by the user."""
    grid: int
    """Number of boundaries of the Karras grid."""
    placed: tuple[StageReport, ...]
    """The stages of the search."""
    evaluated: tuple[ScoredCandidate, ...]
    """All scores that were computed."""
    chosen: tuple[ChosenPoints, ...]
    """The points for each NFE."""
    note: str
    """A text that says how the search was done."""

    @property
    def spent(self) -> int:
        """Number of samples taken by all stages."""
        return sum(placed.spent for placed in self.placed)

    @property
    def fixed(self) -> int:
        """Number of samples that OpenAI's ternary search would have taken."""
        return sum(placed.fixed for placed in self.placed)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "samples": {"spent": self.spent, "fixed_size_ternary": self.fixed}}

    def write(self, stem: Path) -> list[Path]:
        """Write STEM.md, STEM.csv (every score) and STEM.png atomically; return their paths."""
        texts = {".md": self.markdown(), ".csv": _csv(self.evaluated)}
        for ending, text in texts.items():
            with written_aside(stem.with_suffix(ending)) as aside:
                aside.write_text(text)
        with written_aside(stem.with_suffix(".png")) as aside:
            _plot(self, aside)
        return [stem.with_suffix(ending) for ending in (*texts, ".png")]

    def markdown(self) -> str:
        """Return the table of the chosen points, and the cost of the search."""
        name = self.chosen[0].score["name"]
        lines = [
            f"# Time points of {self.model}",
            "",
            f"| NFE | time points | `--ts`, `--boundaries {self.grid}` | {name} | ± | of default points |",
            "|---:|---|---|---:|---:|---:|",
        ]
        for chosen in self.chosen:
            points = ", ".join(f"{tau:.4g}" for tau in chosen.taus) or "-"
            lines.append(
                f"| {chosen.nfe} | {points} | `{chosen.ts}` | {chosen.score['value']:.4g} "
                f"| {chosen.score['error']:.2g} | {chosen.default_value:.4g} |"
            )
        cost = (
            f"{self.spent:,} samples in {sum(placed.rounds for placed in self.placed)} rounds, "
            f"{self.spent / self.fixed:.1%} of the {self.fixed:,} of the ternary search that gives each "
            "candidate the full budget."
        )
        doubts = [sentence for chosen in self.chosen for sentence in chosen.doubts]
        return "\n".join([*lines, "", cost, "", " ".join([self.note, *doubts]), ""])


def _csv(evaluated: Sequence[ScoredCandidate]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "points", "taus", "first", "samples", "value", "error"])
    for row in evaluated:
        points, taus = (" ".join(map(str, numbers)) for numbers in (row.points, row.taus))
        writer.writerow([row.stage, points, taus, row.first, row.samples, row.value, row.error])
    return text.getvalue()


def _plot(report: TimePointsReport, file: Path) -> None:
    """Draw a panel per stage: score against the time that was searched, with a dot per score.

    Lines connect scores on the same samples; only these compare, since fewer samples give a larger distance.
    Fresh samples are those of the confirmation.
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


def _rows(report: TimePointsReport, placed: StageReport) -> list[ScoredCandidate]:
    return [row for row in report.evaluated if row.stage == placed.stage]


def _panel(axes: Any, placed: StageReport, rows: Sequence[ScoredCandidate]) -> None:
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
        f"NFE {placed.nfe}: {placed.tau:.3g} {what}{beside}\n{placed.spent:,} samples",
        fontsize=9,
    )
    axes.grid(True, which="both", alpha=0.3)
