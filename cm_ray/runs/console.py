"""Progress of a run on the terminal, from the rows of its log."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cm_ray.errors import UserError, plain, spoken
from cm_ray.runs.directory import RunDirectory

POLL_S = 0.5
"""Seconds between two reads of the log."""
LINES_S = 1.0
"""Seconds between two lines of progress, at least."""
_GAUGES = {"num_scales": "N", "target_decay": "mu", "stage": "stage"}


class Progress:
    """Shows training progress: a progress bar on a terminal, otherwise a line for each row of the log."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm  # sampling alone does not need it

        self.steps = steps
        self.bar = tqdm(total=steps, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None

    def show(self, row: dict[str, Any]) -> None:
        """Show a row of metrics.jsonl."""
        text = _scores(row) if "scores" in row else _training(row)
        if not text:
            return
        if self.bar is None:
            left = "" if "scores" in row or row["step"] < 3 else f"  left {self._left(row)}"
            print(f"step {row['step']}/{self.steps}  {text}{left}", file=sys.stderr, flush=True)
        elif "scores" in row:
            self.bar.write(f"step {row['step']}  {text}", file=sys.stderr)
        else:
            self.bar.set_postfix_str(text)
            self.bar.update(row["step"] - self.bar.n)

    def close(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()

    def _left(self, row: dict[str, Any]) -> str:
        seconds = row["seconds"] / row["step"] * (self.steps - row["step"])
        from tqdm import tqdm

        return tqdm.format_interval(seconds)


@contextlib.contextmanager
def followed(run: RunDirectory, *consumers: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Call the consumers with every new row of the run's log, from a thread, until the block ends.

    A consumer that raises gets no further rows, and others still do; its exception is raised after the block.
    """
    done = threading.Event()
    seen = {_key(row) for row in run.read_metrics()}
    errors: list[BaseException] = []
    thread = threading.Thread(
        target=_follow, args=(run, list(consumers), seen, done, errors), name="progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if errors:
        raise errors[0]


def _follow(
    run: RunDirectory,
    consumers: list[Callable[[dict[str, Any]], None]],
    seen: set[tuple[int, bool]],
    done: threading.Event,
    errors: list[BaseException],
) -> None:
    version = None
    while True:
        last, now, rows = done.is_set(), version, []
        with contextlib.suppress(UserError):  # of storage at an address; the next look comes soon
            run.follow(last=last)
        with contextlib.suppress(OSError):  # of network storage
            now = _version(run)
            rows = run.read_metrics() if now != version else []
        for row in rows:
            if _key(row) not in seen:  # a resumed run writes some rows a second time
                seen.add(_key(row))
                for consume in list(consumers):
                    try:
                        consume(row)
                    except Exception as error:
                        consumers.remove(consume)
                        errors.append(error)
                        with contextlib.suppress(OSError):  # of a terminal that is gone
                            say(f"warning: following the log failed: {type(error).__name__}: {error}")
        version = now
        if last:
            return
        done.wait(POLL_S)


def _key(row: dict[str, Any]) -> tuple[int, bool]:
    return row["step"], "scores" in row


def _version(run: RunDirectory) -> tuple[int, int] | None:
    """Return inode and size of the log file, which change when the log changes; None without a file."""
    if not run.metrics_file.exists():
        return None
    status = run.metrics_file.stat()
    return status.st_ino, status.st_size


def _training(row: dict[str, Any]) -> str:
    gauges = "".join(f"{short} {row[name]:.3g}  " for name, short in _GAUGES.items() if name in row)
    return f"loss {row['loss']:.4g}  {gauges}{row['images_per_s']:.0f} images/s"


def _scores(row: dict[str, Any]) -> str:
    """Return the scores while training, and a note if the average still is mainly its initial weights."""
    texts = [f"{score['name']} ({score['key']['sampler']}) {score['value']:.4g}" for score in row["scores"]]
    if share := row.get("initial_share"):
        texts.append(f"{share:.0%} of the average are the initial weights")
    return "  ".join(texts)


def say(text: str) -> None:
    """Print a message to the terminal (standard error)."""
    lines = spoken(text).splitlines()
    print("\n".join(map(plain, lines)), file=sys.stderr, flush=True)


def command(*words: object) -> str:
    """Return a command line that can be pasted into a shell, whatever the paths in it."""
    return shlex.join(map(str, words))


@contextlib.contextmanager
def shown(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that shows progress: a bar on a terminal, else a line for each tenth.

    Of tenths that take less than a second, as many lines are left out.
    """
    if not sys.stderr.isatty():
        tenths, last = set[int](), time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal last
            tenth, now = 10 * done // max(1, total), time.monotonic()
            if tenth not in tenths and now - last >= LINES_S:
                tenths.add(tenth)
                last = now
                print(f"{unit} {done} of {total}", file=sys.stderr, flush=True)

        yield say
        return
    from tqdm import tqdm

    with tqdm(unit=unit, unit_scale=unit == "byte", delay=0.1) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
