"""A comparison of methods by score and cost, as the table and figure of a paper: Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cm_ray.extras import needs
from cm_ray.metrics.score import Score
from cm_ray.storage.files import written_aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The result of one sampler of one trained method."""

    method: str
    """Name in the table, such as CD, PD, EDM (Heun)."""
    score: dict[str, Any]
    """A row of a `Score`, with its key."""
    noise_distance: float
    """The same distance for clipped Gaussian noise, as a scale."""
    seconds_per_1000: float
    """Seconds in which one actor samples 1,000 images."""
    training_s: float | None
    """Training time of the method in seconds, without its teacher's; None when it is not known."""

    @property
    def nfe(self) -> int:
        """Number of network evaluations per sample."""
        return int(self.score["key"]["nfe"])

    @property
    def sampler(self) -> str:
        """The text of the sampler."""
        return str(self.score["key"]["sampler"])

    @property
    def value(self) -> float:
        """The value of the score; lower is better."""
        return Score.from_row(self.score).value

    def to_row(self) -> dict[str, Any]:
        """Return the cell as JSON values."""
        return asdict(self)


def write_comparison(cells: Sequence[Cell], stem: Path, *, title: str, note: str) -> list[Path]:
    """Write STEM.md, STEM.csv and STEM.png atomically; return their paths.

    note: a text below the table that says how and on what machine the scores were measured.
    """
    texts = {".md": _markdown(cells, title, note), ".csv": _csv(cells)}
    for ending, text in texts.items():
        with written_aside(stem.with_suffix(ending)) as aside:
            aside.write_text(text)
    with written_aside(stem.with_suffix(".png")) as aside:
        _plot(cells, aside, title)
    return [stem.with_suffix(ending) for ending in (*texts, ".png")]


def _markdown(cells: Sequence[Cell], title: str, note: str) -> str:
    name = cells[0].score["name"]
    lines = [
        f"# {title}",
        "",
        f"| method | sampler | NFE | {name} | share of noise's | s per 1,000 images | training |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for cell in cells:
        training = "" if cell.training_s is None else f"{cell.training_s:.0f} s"
        lines.append(
            f"| {cell.method} | `{cell.sampler}` | {cell.nfe} | {cell.value:.3f} "
            f"| {cell.value / cell.noise_distance:.2%} | {cell.seconds_per_1000:.2f} | {training} |"
        )
    return "\n".join([*lines, "", note, ""])


def _csv(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    columns = [
        "method",
        "sampler",
        "nfe",
        "score",
        "value",
        "noise",
        "seconds_per_1000",
        "training_s",
    ]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for cell in cells:
        row = [cell.method, cell.sampler, cell.nfe, cell.score["name"], cell.value]
        writer.writerow([*row, cell.noise_distance, cell.seconds_per_1000, cell.training_s])
    return text.getvalue()


def _plot(cells: Sequence[Cell], file: Path, title: str) -> None:
    """Draw score against NFE with a line per method; a method with a single sampler is a horizontal line."""
    needs("matplotlib", extra="train")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    counts = set()
    for method in dict.fromkeys(cell.method for cell in cells):
        points = sorted((cell.nfe, cell.value) for cell in cells if cell.method == method)
        if len(points) == 1:
            (nfe, value), *_ = points
            label = f"{method}, NFE {nfe}"
            axes.axhline(value, color="black", linestyle=":", linewidth=1, label=label)
        else:
            axes.plot(*zip(*points, strict=True), marker="o", label=method)
            counts |= {nfe for nfe, _ in points}
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(counts), [str(count) for count in sorted(counts)])
    axes.set_yscale("log")
    axes.set_xlabel("NFE (network evaluations per image)")
    axes.set_ylabel(f"{cells[0].score['name']} (lower is better)")
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, format="png")
    pyplot.close(figure)
