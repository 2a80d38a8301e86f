"""The environment variable by which threads of PyTorch sleep soon while they wait for work."""

from __future__ import annotations

SPIN_COUNT = ("GOMP_SPINCOUNT", "1000")
"""Name and value, for processes that have not imported PyTorch. Threads that look for work for milliseconds,
as by default, slow other programs on the same cores down a hundredfold."""
