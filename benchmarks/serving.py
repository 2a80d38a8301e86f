"""Benchmark of a served model: images a second and latency at 1, 8 and 64 clients, beside MLflow's server.

    python benchmarks/serving.py --model runs/demo

Both servers run alone, one after the other, on the loopback of this machine, whose cores the clients share. A
client asks for one image at a time, with a seed of its own, and asks again when it has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from machine import machine, write_row

from cm_ray.command_line.options import run_job
from cm_ray.tracking.locate import locate_model
from cm_ray.tracking.registry import save_pyfunc

ROOT = Path(__file__).parents[1]
START_S = 300
Body = Callable[[int], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Settings of the benchmark."""

    model: str
    """Model to serve: its run directory, for example."""
    clients: tuple[int, ...] = (1, 8, 64)
    """Numbers of clients that ask at the same time."""
    seconds: float = 10.0
    """Seconds of each number of clients, after a second that does not count."""
    steps: int = 2
    """Network evaluations of an image."""
    replicas: int = 1
    """Replicas of Ray Serve, and workers of MLflow."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ours(args: Load) -> Iterator[str]:
    """Serve by Ray Serve inside of the block; yield the address of samples."""
    port = free_port()
    words = ["jobs/serve.py", args.model, "--port", str(port), "--actors.count", str(args.replicas)]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if "serves" not in process.stdout.readline():
            raise RuntimeError("Ray Serve has not started")
        yield f"http://127.0.0.1:{port}/sample"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


@contextlib.contextmanager
def mlflows(args: Load) -> Iterator[str]:
    """Serve by MLflow inside of the block; yield the address of samples."""
    port, folder = free_port(), Path(tempfile.mkdtemp())
    save_pyfunc(locate_model(args.model), folder / "model")
    words = ["models", "serve", "-m", str(folder / "model"), "--env-manager", "local", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words, "--port", str(port), "--workers", str(args.replicas)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{port}/ping"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("MLflow's server has not started")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        shutil.rmtree(folder)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url, timeout=5).close()
        return True
    return False


async def loaded(url: str, body: Body, clients: int, seconds: float) -> dict[str, Any]:
    """Ask from many clients; return images a second, and the latencies of answers in the counted time."""
    begin = time.perf_counter() + 1.0
    end, spans = begin + seconds, []
    numbers = iter(range(1 << 30))

    async def client(session: aiohttp.ClientSession) -> None:
        while (asked := time.perf_counter()) < end:
            async with session.post(url, json=body(next(numbers))) as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{url} answered {answer.status}")
            if begin <= (now := time.perf_counter()) <= end:
                spans.append(now - asked)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    spans.sort()
    return {
        "clients": clients,
        "images_per_s": round(len(spans) / seconds, 1),
        "median_ms": round(1000 * statistics.median(spans), 1) if spans else None,
        "p95_ms": round(1000 * spans[int(0.95 * (len(spans) - 1))], 1) if spans else None,
    }


def main(args: Load) -> None:
    bodies: dict[str, Body] = {
        "cm-ray serve": lambda seed: {"seed": seed, "steps": args.steps},
        "mlflow models serve": lambda seed: {
            "dataframe_split": {"columns": ["index"], "data": [[0]]},
            "params": {"seed": seed, "steps": args.steps},
        },
    }
    before, found = machine()["load_1min"], {}
    for name, server in (("cm-ray serve", ours), ("mlflow models serve", mlflows)):
        with server(args) as url:
            found[name] = [
                asyncio.run(loaded(url, bodies[name], clients, args.seconds)) for clients in args.clients
            ]
        for row in found[name]:
            print(name, row, flush=True)
    settings = {"model": args.model, "steps": args.steps, "replicas": args.replicas, "seconds": args.seconds}
    print(f"row added to {write_row('serving', {**settings, 'load_before': before, **found})}")


if __name__ == "__main__":
    run_job(Load, main, __doc__ or "")
