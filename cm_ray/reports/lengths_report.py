"""The report of the scored lengths of averages: a table, and a plot of score against length."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from cm_ray.evaluation.lengths import ScoredLength, best_length, scored_alike
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import written_aside


def write_lengths(run: RunDirectory, one: ScoredLength) -> list[Path]:
    """Write averages.md and, where matplotlib is installed, averages.png into a run; return their paths.

    They show all lengths that were scored in the same way as `one`, in this call and in earlier ones.
    """
    scored = scored_alike(run, one)
    table, plot = run.root / "averages.md", run.root / "averages.png"
    with written_aside(table) as aside:
        aside.write_text(lengths_table(scored))
    if importlib.util.find_spec("matplotlib") is None:
        return [table]
    with written_aside(plot) as aside:
        _plot(scored, aside)
    return [table, plot]


def lengths_table(scored: Sequence[ScoredLength]) -> str:
    """Return the scores of averages of one run as Markdown, in the order given, the best in bold.

    The last columns compare each length with the best one on the same noise, and give the error of its
    reconstruction.
    """
    best = best_length(scored)
    key = best.score.key
    lines = [
        f"Averages of step {best.step}, {key['n']} samples by `{key['sampler']}` with seed {key['seed']}:",
        "",
        f"| length (sigma_rel) | {best.score.name} | ± | over the best | ± | error of the reconstruction |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for each in scored:
        mark = "**" if each is best else ""
        apart, error = each.difference(best)
        beside = "| | " if each is best else f"| {apart:.3g} | {error:.2g} "
        lines.append(
            f"| {mark}{each.length:g}{mark} | {mark}{each.score.value:.4g}{mark} | {each.score.error:.2g} "
            f"{beside}| {each.fit_error:.2%} |"
        )
    return "\n".join([*lines, ""])


def _plot(scored: Sequence[ScoredLength], file: Path) -> None:
    """Draw score against length, with an error bar of one standard error each, and mark the best."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best = best_length(scored)
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    lengths, values = [each.length for each in scored], [each.score.value for each in scored]
    errors = [each.score.error or 0.0 for each in scored]
    axes.errorbar(lengths, values, yerr=errors, marker="o", capsize=3, label="± one standard error")
    axes.plot([best.length], [best.score.value], "ko", zorder=3, label=f"best: {best.length:g}")
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axes.minorticks_off()
    axes.set_xlabel("length of the average, sigma_rel")
    axes.set_ylabel(f"{best.score.name} (lower is better)")
    axes.set_title(f"Averages of step {best.step}, sampled by {best.score.key['sampler']}")
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.savefig(file, format="png")
    pyplot.close(figure)
