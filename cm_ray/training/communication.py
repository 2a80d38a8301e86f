"""Communication between the workers of a training; a training without Ray has one worker."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


class Communication(Protocol):
    """Collective operations: all workers must call them in the same order."""

    @property
    def rank(self) -> int:
        """Number of this worker."""
        ...

    @property
    def world(self) -> int:
        """Number of workers."""
        ...

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every worker."""
        ...

    def fill(self, tensor: Tensor) -> None:
        """Fill a contiguous tensor on the CPU, of the same shape everywhere, with rank 0's."""
        ...

    def barrier(self) -> None:
        """Wait until every worker has reached this call."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a vector over the workers."""
        ...

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor on the CPU, of the same shape everywhere, over the workers."""
        ...

    def report(self, step: int) -> None:
        """Report the step of a new checkpoint."""
        ...

    def has_room(self) -> bool:
        """Return True, on every worker, if the training is to go on with more workers."""
        ...

    def leaving_nodes(self) -> frozenset[str]:
        """Return the nodes of workers that will be taken away soon, as rank 0 knows them, on every worker."""
        ...


class SingleWorker:
    """Communication of a single worker."""

    rank, world = 0, 1

    def broadcast(self, value: T) -> T:
        """Return the value."""
        return value

    def fill(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""

    def barrier(self) -> None:
        """Return at once."""

    def mean(self, values: Tensor) -> Tensor:
        """Return the vector."""
        return values

    def sum(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value

    def report(self, step: int) -> None:
        """Ignore the report."""

    def has_room(self) -> bool:
        """Return False."""
        return False

    def leaving_nodes(self) -> frozenset[str]:
        """Return no nodes."""
        return frozenset()
