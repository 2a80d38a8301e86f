"""The resources that a piece of work began with: it goes on with them, and never silently with others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cm_ray.errors import UserError
from cm_ray.storage.files import read_json, write_json
from cm_ray.storage.shapes import Shape

_FILE = "resources.json"
_SHAPE: Shape = {"device": str, "workers": int, "least?": int, "threads": int, "batch?": int}
_MOST = 1_000_000
"""More workers or threads than any cluster has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of a run, a search, an evaluation or an edit. Results of others differ by rounding."""

    device: str
    """cpu or cuda."""
    workers: int = 1
    """Training workers, at most where they may change. Pools of any number of actors make the same bits."""
    least: int = 0
    """Training workers at least; 0: as many as at most."""
    threads: int = 0
    """PyTorch threads of each worker on CPU; 0: not remembered."""
    batch: int = 0
    """Images per network evaluation of a pool of actors; 0: not remembered."""

    @classmethod
    def load(cls, folder: Path) -> Resources | None:
        """Read the resources that the work in a folder began with; None before its first start."""
        file = folder / _FILE
        if not file.is_file():
            return None
        found = cls(**read_json(file, _SHAPE))
        counts = found.threads, found.batch
        wrong = found.workers not in range(1, _MOST) or found.least not in range(found.workers)
        if wrong or any(count not in range(_MOST) for count in counts):
            raise UserError(f"{file} has other numbers than of workers, threads and images; restore it.")
        return found

    def save(self, folder: Path) -> None:
        """Remember the resources of the work in a folder."""
        if self != Resources.load(folder):
            write_json(folder / _FILE, asdict(self))

    @property
    def counted(self) -> str:
        """The numbers of workers in a sentence."""
        return f"{self.least} to {self.workers} workers" if self.least else f"{self.workers} workers"

    @property
    def noun(self) -> str:
        """The device in a sentence."""
        return {"cuda": "GPUs", "cpu": "CPUs"}.get(self.device, self.device)
