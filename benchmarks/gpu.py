"""Benchmark of training steps and samples on one GPU: one call, at most ten minutes, a table.

    PYTHONPATH=. python benchmarks/gpu.py                                    # all sections, 570 s at most
    PYTHONPATH=. python benchmarks/gpu.py --sections steps --seconds 300
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --small --seconds 120 # tries the program on a CPU

It needs PyTorch, NumPy, Pillow and safetensors alone. Every step is compared with two steps of an eager
program in float32 (losses and updates, see gpu_cases.py) before it is timed, and its row says how it agreed.
Rows go to results/gpu.jsonl as they are made; a section that runs out of its time ends, and the next begins.
A case that fails is a row with its error, and the exit status is 1. Sections:

steps      all workloads: eager, channels first, the plain program
waits      a step in steady state under PyTorch's check for host synchronisation (CUDA alone)
data       steps whose uint8 images come from the host against images on the device; the profiler's shares
updates    optimizer and averages: a loop, foreach, one kernel
samples    one-step samples by batch size, and the features of FID by Inception-v3 with random weights
compiled   torch.compile, CUDA graphs, channels first; then the fastest variant at other batch sizes
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu_cases import WORKLOADS, Case, Reference, Variant, engine_of, free, plain_exists, stepper
from gpu_parts import copies, features_of_fid, one_step_samples, updates, waits
from machine import write_row
from timing import counted_flops, matmul_flops, random_images, synchronised

SHARES = {"steps": 0.34, "waits": 0.06, "data": 0.1, "updates": 0.05, "samples": 0.12, "compiled": 0.33}
"""Sections, and their shares of the time; what one leaves goes to the next."""
BATCHES = {"cifar10": (256, 128, 512), "imagenet64": (64, 32, 128)}
STEPS = 8
"""Steps that are issued without a pause between two readings of the clock."""


class OutOfTime(BaseException):
    """The time of a section is over; no handler of errors takes it for an error."""


@dataclass
class Run:
    """A run of the benchmark: its settings, the speed of matrix products, and the rows so far."""

    device: str
    small: bool
    seconds: float
    matmul: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, section: str, case: str, **values: Any) -> None:
        """Print and keep a row."""
        row = {"section": section, "case": case, "device": self.device, "small": self.small, **values}
        row["matmul_tflop_per_s"] = round(self.matmul / 1e12, 3)
        self.rows.append(row)
        shown = {k: v for k, v in row.items() if k not in ("section", "case", "device", "small")}
        print(f"{section:9} {case:44} {'  '.join(f'{k} {v}' for k, v in shown.items())}", flush=True)
        write_row("gpu", row)

    def case(self, workload: str, variant: Variant, batch: int = 0) -> Case:
        """Return a case at the first batch size of its images, or at another."""
        size = batch or (4 if self.small else BATCHES[workload.split()[0]][0])
        return Case(workload=workload, variant=variant, batch_size=size, device=self.device, small=self.small)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what runs inside of this context after some seconds."""

    def end(signum: int, frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01), 5.0)  # again, should a library swallow it
    try:
        yield
    except OutOfTime:
        print(f"    ... the {seconds:.0f} s of this section are over", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def reported(run: Run, section: str, case: str) -> Iterator[None]:
    """Make a row of an error, so that the other cases are still measured."""
    try:
        yield
    except torch.OutOfMemoryError:
        run.add(section, case, result="out of memory")
    except Exception as error:
        run.add(section, case, failed=f"{type(error).__name__}: {str(error).splitlines()[0][:300]}")
    finally:
        free()


def step_seconds(step: Callable[[], object], device: str, rounds: int) -> tuple[float, float]:
    """Return the seconds of a step in steady state, and the share of them in which the host issues it."""
    whole, issuing = [], []
    for _ in range(rounds):
        synchronised(device)
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        issued = time.perf_counter() - started
        synchronised(device)
        whole.append((time.perf_counter() - started) / STEPS)
        issuing.append(issued / STEPS)
    seconds = statistics.median(whole)
    return seconds, statistics.median(issuing) / seconds


def time_case(run: Run, section: str, case: Case, reference: Reference | None) -> float:
    """Check and time a case, keep its row, and return its images per second; 0 for one that disagrees."""
    free()  # an error that has just been reported kept its engine until now
    name = f"{case.workload}, {case.variant}, {case.batch_size}"
    engine = engine_of(case)
    batch = random_images(engine)
    batch = type(batch)(batch.images.to(case.device), batch.labels.to(case.device))
    step = stepper(case, engine, batch)
    checked = reference.check(engine, step) if reference else None
    if checked and not checked.holds:
        run.add(section, name, failed=f"disagrees with the eager program: {checked}")
        return 0.0
    step()
    seconds, host = step_seconds(step, case.device, 1 if run.small else 3)
    flops = _flops(case)
    run.add(
        section,
        name,
        images_per_s=round(case.batch_size / seconds, 1),
        ms=round(1000 * seconds, 2),
        share_of_matmul=round(flops / seconds / run.matmul, 3),
        host_share=round(host, 3),
        peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2) if case.device == "cuda" else None,
        tflop=round(flops / 1e12, 4),
        loss_differs=round(checked.loss, 5) if checked else None,
        update_differs=round(checked.update, 5) if checked else None,
    )
    return case.batch_size / seconds


_counted: dict[str, float] = {}


def _flops(case: Case) -> float:
    """Return the operations of a step, counted on two images."""
    if case.workload not in _counted:
        two = Case(
            workload=case.workload, variant="eager", batch_size=2, device=case.device, small=case.small
        )
        _counted[case.workload] = counted_flops(engine_of(two)) / 2
    return _counted[case.workload] * case.batch_size


def compared(run: Run, section: str, workloads: list[str], variants: tuple[Variant, ...]) -> None:
    """Time variants of workloads, all against one reference each, and the fastest at other batch sizes."""
    for workload in workloads:
        reference, speeds = None, dict[Variant, float]()
        with reported(run, section, f"{workload}, reference"):
            reference = Reference.of(run.case(workload, "eager"))
        for variant in variants:
            if variant == "plain" and not plain_exists(workload):
                continue
            case = run.case(workload, variant)
            with reported(run, section, f"{workload}, {variant}, {case.batch_size}"):
                speeds[variant] = time_case(run, section, case, reference)
        if section == "compiled" and speeds and not run.small:
            fastest = max(speeds, key=lambda variant: speeds[variant])
            for batch in BATCHES[workload.split()[0]][1:]:
                with reported(run, section, f"{workload}, {fastest}, {batch}"):
                    time_case(run, section, run.case(workload, fastest, batch), None)


def section(run: Run, name: str, workloads: list[str]) -> None:
    """Run a section."""
    first = run.case(workloads[0], "eager")
    if name == "steps":
        compared(run, name, workloads, ("eager", "plain", "channels first"))
    elif name == "compiled":
        compared(run, name, workloads, ("compiled", "graphs", "compiled channels first"))
    elif name == "samples":
        with reported(run, name, "features"):
            features_of_fid(run)
        for workload in workloads:
            with reported(run, name, workload):
                one_step_samples(run, run.case(workload, "eager"))
    else:
        part = {"waits": waits, "data": copies, "updates": updates}[name]
        with reported(run, name, first.workload):
            part(run, first)


def measure(run: Run, sections: list[str], workloads: list[str]) -> bool:
    """Run the sections within the time; return True if every case worked."""
    ends = time.monotonic() + run.seconds
    dtype, size = torch.bfloat16, 256 if run.small else 8192
    run.matmul = matmul_flops(dtype, run.device, size)
    run.add("matmul", f"bfloat16, {size} x {size}")
    for position, name in enumerate(sections):
        left = ends - time.monotonic()
        share = SHARES[name] / sum(SHARES[each] for each in sections[position:])
        with limited(left * share):
            section(run, name, workloads)
        free()
    return not any("failed" in row for row in run.rows)


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of the options; it is argparse's, since a machine with a GPU may not have tyro."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small networks, images and batches")
    parser.add_argument("--seconds", type=float, default=570.0, help="most seconds of all sections")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, measure, and return the exit status."""
    parser = options_parser()
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here: --device cpu --small tries the program on a CPU")
    run = Run(args.device, args.small, args.seconds)
    return 0 if measure(run, args.sections, args.workloads) else 1


if __name__ == "__main__":
    sys.exit(main())
