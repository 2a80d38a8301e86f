"""Progress of a sweep: a table that is redrawn on a terminal, or a line for each event elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import time
from bisect import insort
from collections import Counter
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
_STATES = ("done", "stopped", "failed")
"""Ends of a trial, the best first."""


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
        """Running trials by number."""
        self.best: list[_Row] = []
        """The best of the others, as many as the table shows."""
        self.ended: Counter[str] = Counter()
        self._over: set[int] = set()
        self.on_terminal, self._drawn = sys.stderr.isatty(), 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show a trial and its settings."""
        params = {name: value for name, value in trial.config.items() if name != NUMBER}
        row = _Row(trial.config[NUMBER], shown_params(params))
        if row.number not in self._over:
            self._show(self.rows.setdefault(row.number, row))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show a score."""
        row = self.rows.get(trial.config[NUMBER])
        if STEP not in result or row is None:
            return
        row.step, row.score = result[STEP], result[SCORE]
        if result.get(FINAL):
            self._end(row)
        elif result.get("seed", 0) == 0:
            self._show(row)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show a trial whose process failed more often than --retries allows."""
        if row := self.rows.get(trial.config[NUMBER]):
            self._end(row)

    def close(self) -> None:
        """Keep the table on the terminal as it is, and draw below it from now on."""
        self._drawn = 0

    def _end(self, row: _Row) -> None:
        outcome = self.trials.outcome(row.number)
        row.state = "done" if SCORES in outcome else "stopped" if STOPPED in outcome else "failed"
        row.note = outcome.get(FAILED, "")
        if COST in outcome:
            row.note = f"{outcome[COST]:.3g} FLOP"
        del self.rows[row.number]
        self._over.add(row.number)
        self.ended[row.state] += 1
        insort(self.best, row, key=_rank)
        del self.best[_ROWS:]
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
        return [*self.rows.values(), *self.best][:_ROWS]

    def _summary(self) -> str:
        known = {**self.ended, "running": len(self.rows)}
        counts = ", ".join(f"{known.get(state, 0)} {state}" for state in ("running", *_STATES))
        return f"({counts}; {self.count} in all)"


def _rank(row: _Row) -> tuple[int, int, bool, float]:
    """Return the place of an ended trial: by its end, its step if it was stopped early, and its score."""
    unknown = math.isnan(row.score)
    step = -row.step if row.state == "stopped" else 0
    return _STATES.index(row.state), step, unknown, 0.0 if unknown else row.score


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
