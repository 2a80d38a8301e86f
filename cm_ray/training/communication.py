"""Communication between the workers of a training; a training without Ray has one worker."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


class Communication(Protocol):
    """Collective operations: every worker calls them equally often."""

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every worker."""
        ...

    def barrier(self) -> None:
        """Wait until every worker has come here."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the workers."""
        ...

    def report(self, step: int) -> None:
        """Report that a checkpoint was taken after a step."""
        ...


class SingleWorker:
    """The communication of a worker that is alone."""

    def broadcast(self, value: T) -> T:
        """Return the value."""
        return value

    def barrier(self) -> None:
        """Do not wait."""

    def mean(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value

    def report(self, step: int) -> None:
        """Report to nobody."""
