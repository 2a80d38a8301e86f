"""Progress of a sweep: a table that is redrawn on a terminal, or a line for each event elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback

from cm_ray.cluster.sweeps.searcher import FINAL, STEP
from cm_ray.cluster.sweeps.sweep_trial import Trials
from cm_ray.runs.console import say
from cm_ray.sweeps.space import NUMBER
from cm_ray.sweeps.study import COST, FAILED, SCORE, SCORES, STOPPED

_ROWS = 24
"""Rows of the table, at most: running trials, then the best."""


@dataclass(slots=True)
class _Row:
    number: int
    settings: str
    state: str = "running"
    step: int = 0
    score: float = math.nan
    note: str = ""
    begun: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        score = "" if math.isnan(self.score) else f"{self.score:.4g}"
        line = f"{self.number:5}  {self.state:8} {self.step:8}  {score:>9}  {self.settings}  {self.note}"
        return line.rstrip()


class SweepTable(Callback):  # type: ignore[misc]
    """Callback of Ray Tune that shows the trials of a sweep."""

    def __init__(self, count: int, trials: Trials) -> None:
        self.count, self.trials = count, trials
        self.rows: dict[int, _Row] = {}
        self.on_terminal, self._drawn = sys.stderr.isatty(), 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show a trial and its settings."""
        params = {name: value for name, value in trial.config.items() if name != NUMBER}
        row = _Row(trial.config[NUMBER], shown_params(params))
        if row.number not in self.rows:
            self.rows[row.number] = row
        self._show(self.rows[row.number])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show a score."""
        if STEP not in result:
            return
        row = self.rows[trial.config[NUMBER]]
        row.step, row.score = result[STEP], result[SCORE]
        if result.get(FINAL):
            self._end(row)
        elif result.get("seed", 0) == 0:
            self._show(row)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show a trial whose process failed more often than --retries allows."""
        self._end(self.rows[trial.config[NUMBER]])

    def close(self) -> None:
        """Keep the table on the terminal as it is, and draw below it from now on."""
        self._drawn = 0

    def _end(self, row: _Row) -> None:
        outcome = self.trials.outcome(row.number)
        row.state = "done" if SCORES in outcome else "stopped" if STOPPED in outcome else "failed"
        row.note = outcome.get(FAILED, "")
        if COST in outcome:
            row.note = f"{outcome[COST]:.3g} FLOP"
        self._show(row)

    def _show(self, row: _Row) -> None:
        if not self.on_terminal:
            say(f"trial {row}")
            return
        width = shutil.get_terminal_size().columns - 1
        lines = [f"trial  state        step      score  {self._summary()}", *map(str, self._shown())]
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        print(up + "\n".join(line[:width] for line in lines), file=sys.stderr, flush=True)
        self._drawn = len(lines)

    def _shown(self) -> list[_Row]:
        """Return the running trials and the best of the others."""
        running = [row for row in self.rows.values() if row.state == "running"]
        others = [row for row in self.rows.values() if row.state != "running"]
        ranks = {"done": 0, "stopped": 1, "failed": 2}
        others.sort(key=lambda row: (ranks[row.state], -row.step if row.state == "stopped" else 0, row.score))
        return (running + others)[:_ROWS]

    def _summary(self) -> str:
        states = [row.state for row in self.rows.values()]
        counts = ", ".join(
            f"{states.count(state)} {state}" for state in ("running", "done", "stopped", "failed")
        )
        return f"({counts}; {self.count} in all)"


def shown_params(params: dict[str, Any]) -> str:
    """Return parameters as text, by the last parts of their paths where these are unique."""
    short = {name: name.rpartition(".")[2] for name in params}
    alone = len(set(short.values())) == len(short)
    return "  ".join(
        f"{short[name] if alone else name}={value:.3g}"
        if isinstance(value, float)
        else f"{short[name] if alone else name}={value}"
        for name, value in params.items()
    )
