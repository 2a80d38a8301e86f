"""Random kills of everything: python -m tests.cluster.chaos --kills 100 --out chaos.md   (make chaos)

Each kill hits one process or host of a cluster of a head and three nodes, at a random moment of a job. The
job has to go on by itself, or by the same command if the command or the head was hit, and its outcome has to
equal that of an undisturbed job to the bit. A call goes on where an earlier one with the same --out stopped.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.chaos_jobs import commands, outcome, prepare
from tests.cluster.small_cluster import SmallCluster, kill
from tests.waiting import LIMIT_S

VICTIMS = {"train": ("command", "worker", "node", "head"), "shards": ("command", "worker", "node", "head")}
OTHERS = ("command", "actor", "node", "head")


class Chaos:
    """Kills, and what came of them."""

    def __init__(self, work, out):
        self.work, self.out = work, out
        self.given = work / "given"
        self.results = (
            json.loads(out.with_suffix(".json").read_text()) if out.with_suffix(".json").exists() else []
        )
        self.undisturbed = {}
        self.cluster = None

    def calm(self, name):
        """Return the outcome of a job that nobody disturbs, and its seconds."""
        if name not in self.undisturbed:
            place, started = self._place("calm", name), time.monotonic()
            process = self._cluster().run(commands(self.given, place)[name], place / "log")
            code = process.wait(LIMIT_S)
            assert code == 0, (place / "log").read_text()
            self.undisturbed[name] = outcome(name, place / "run"), time.monotonic() - started
        return self.undisturbed[name]

    def kill(self, number):
        """Disturb a job, and note what came of it."""
        drawn = random.Random(number)
        name = drawn.choice(list(commands(self.given, self.work)))
        victim = drawn.choice(VICTIMS.get(name.split(",")[0], OTHERS))
        expected, seconds = self.calm(name)
        moment = drawn.uniform(0.1, 0.95) * seconds
        place = self._place(f"kill-{number}", name)
        command, started = commands(self.given, place)[name], time.monotonic()
        process = self._cluster().run(command, place / "log")
        try:
            hit = self._strike(victim, process, moment, drawn)
            end = self._see_through(victim, process, command, place)
            same = end == "ended" and outcome(name, place / "run") == expected
            verdict = "equal" if same else end if end != "ended" else "OTHER BITS"
        except (subprocess.TimeoutExpired, AssertionError, FileNotFoundError, KeyError) as error:
            hit, verdict = locals().get("hit", "?"), f"{type(error).__name__}: {error}"[:200]
            kill(process)
            self._renew()
        if verdict == "equal":
            shutil.rmtree(place)
        self.results.append(
            {
                "number": number,
                "job": name,
                "victim": victim,
                "at": round(moment / seconds, 2),
                "hit": hit,
                "verdict": verdict,
                "seconds": round(time.monotonic() - started),
                "undisturbed": round(seconds),
            }
        )
        self.write()
        print(json.dumps(self.results[-1]), flush=True)

    def _strike(self, victim, process, moment, drawn):
        """Kill the victim at the moment; return whether the job was still going on."""
        until = time.monotonic() + moment
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        if process.poll() is not None:
            return "over"
        if victim == "command":
            kill(process)
        elif victim == "head":
            kill(self.cluster.head)
        elif victim == "node":
            kill(drawn.choice(self.cluster.nodes))
        else:
            workers = self.cluster.workers()
            if not workers:
                return "nobody"
            drawn.choice(workers).kill()
        return "hit"

    def _see_through(self, victim, process, command, place):
        """Wait for the end of a job; repeat its command if that, or the head, was hit."""
        if victim in ("command", "head"):
            code = process.wait(LIMIT_S)
            if victim == "head" or code == 0:
                self._renew()
            if code != 0:
                code = self._cluster().run(command, place / "log").wait(LIMIT_S)
        else:
            code = process.wait(LIMIT_S)
        if victim == "node":
            self._renew()
        return "ended" if code == 0 else f"exit code {code}"

    def _place(self, kind, name):
        place = self.work / kind / name.replace(", ", "-").replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _cluster(self):
        if self.cluster is None:
            self.cluster = SmallCluster(nodes=3)
        return self.cluster

    def _renew(self):
        """End the cluster; the next job gets a new one."""
        if self.cluster is not None:
            self.cluster.end()
            self.cluster = None

    def write(self):
        """Write all results, and the table."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.with_suffix(".json").write_text(json.dumps(self.results, indent=1))
        self.out.write_text(table(self.results))


def table(results):
    """Return a table of equal outcomes by job and victim."""
    victims = list(dict.fromkeys(row["victim"] for row in results))
    lines = [f"| job | {' | '.join(victims)} |", f"|---|{'---|' * len(victims)}"]
    for name in sorted({row["job"] for row in results}):
        cells = []
        for victim in victims:
            found = [row for row in results if (row["job"], row["victim"]) == (name, victim)]
            equal = sum(row["verdict"] == "equal" for row in found)
            cells.append(f"{equal} of {len(found)}" if found else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    equal = sum(row["verdict"] == "equal" for row in results)
    hit = sum(row["hit"] == "hit" for row in results)
    lines += [
        "",
        f"{equal} of {len(results)} outcomes are equal to the bit; {hit} kills hit a job that was going on.",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Kill until there are so many results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("chaos.md"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="chaos", dir="/tmp"))
    chaos = Chaos(work, options.out)
    chaos.given.mkdir()
    prepare(chaos.given)
    try:
        for number in range(len(chaos.results), options.kills):
            chaos.kill(number)
    finally:
        chaos._renew()
    print(table(chaos.results))
    sys.exit(any(row["verdict"] != "equal" for row in chaos.results))


if __name__ == "__main__":
    main()
