"""Sums of gradients in one order, whatever the number of workers, so that any number trains the same bits.

The global batch is cut into micro-batches of a fixed size. Their gradients are the leaves of a tree, whose
levels add up as many neighbours as the range of workers says. A worker has the leaves below one node of it:
it adds these up by itself, and the workers exchange their sums for the levels above.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from cm_ray.recipes.worker_range import WorkerRange
from cm_ray.training.batch import Share
from cm_ray.training.data_parallel import without_sync

Total = Callable[[Tensor, Sequence[int]], Tensor]
"""Returns the sum of the workers' vectors, in the order of a tree with these levels, on every worker."""
PIECE_VALUES = 16 << 20
"""Values that are exchanged at once: an exchange needs memory for twice as many."""


class TreeSum:
    """The sum of blocks of tensors that come one after another, in the order of a tree.

    arities: how many neighbours each level adds up, from the leaves on; their product is the number of
    blocks. Blocks are changed in place, and one for each level is held.
    """

    def __init__(self, arities: Sequence[int]) -> None:
        self.arities = arities
        self._open: list[tuple[int, list[Tensor]]] = [(0, []) for _ in arities]
        self._total: list[Tensor] | None = None

    def add(self, block: list[Tensor]) -> None:
        """Add the next block."""
        for level, arity in enumerate(self.arities):
            count, held = self._open[level]
            if count:
                torch._foreach_add_(held, block)
                block = held
            if count + 1 < arity:
                self._open[level] = (count + 1, block)
                return
            self._open[level] = (0, [])
        self._total = block

    def total(self) -> list[Tensor]:
        """Return the sum of all blocks."""
        if self._total is None:
            raise AssertionError("blocks are missing")
        return self._total


class MeanOfWorkers:
    """The mean of the gradients of a worker's micro-batches; DistributedDataParallel takes the workers'.

    replicas: the modules that are called. count: micro-batches of a worker.
    """

    def __init__(self, replicas: Sequence[nn.Module | None], count: int) -> None:
        self.replicas, self.count = replicas, count
        self.divisor = count

    def mean(self, losses: list[Tensor]) -> Tensor:
        """Return the mean of the losses of the worker's micro-batches."""
        return torch.stack(losses).mean()

    @contextlib.contextmanager
    def adding(self, index: int) -> Iterator[None]:
        """Add what a backward pass in this context gives for micro-batch `index`."""
        last = index == self.count - 1
        with contextlib.nullcontext() if last else without_sync(*self.replicas):
            yield


class OrderedMean:
    """The mean of the gradients of all micro-batches of a step, in the order of the tree.

    student: or a module of all that is trained; its gradients are the mean after the last micro-batch. total:
    adds up over the workers.
    """

    def __init__(
        self, student: nn.Module, workers: WorkerRange, accumulate: int, share: Share, total: Total
    ) -> None:
        self.parameters = [each for each in student.parameters() if each.requires_grad]
        self.divisor = accumulate * workers.most
        self.count = self.divisor // share.world
        self.own = [accumulate, *workers.levels_below(share.world)]
        self.others = workers.levels_above(share.world) if share.world > 1 else ()
        self._sum, self._add_up = TreeSum(self.own), total

    def mean(self, losses: list[Tensor]) -> Tensor:
        """Return the mean of the losses of the worker's micro-batches."""
        tree = TreeSum(self.own)
        for loss in losses:
            tree.add([loss.clone()])
        return tree.total()[0] / self.count

    @contextlib.contextmanager
    def adding(self, index: int) -> Iterator[None]:
        """Add what a backward pass in this context gives for micro-batch `index`."""
        yield
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self._sum.add(gradients)
        last = index == self.count - 1
        total = self._of_workers(self._sum.total()) if last else [None] * len(gradients)
        for parameter, gradient in zip(self.parameters, total, strict=True):
            parameter.grad = gradient

    def _of_workers(self, own: list[Tensor]) -> list[Tensor]:
        """Replace the tensors of this worker by those of all workers."""
        if not self.others:
            return own
        for _, group in groupby(sorted(own, key=lambda each: str(each.dtype)), key=lambda each: each.dtype):
            tensors = list(group)
            flat = torch.cat([each.reshape(-1) for each in tensors])
            for piece in flat.split(PIECE_VALUES):
                piece.copy_(self._add_up(piece, self.others))
            for tensor, value in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
                tensor.copy_(value.view(tensor.shape))
        return own


def total_of_workers(values: Tensor, levels: Sequence[int]) -> Tensor:
    """Return the sum of the workers' vectors in the order of a tree, on every worker of the process group.

    Each worker adds up its share of the values, and all get all shares: as many bytes as of any reduction.
    """
    world = torch.distributed.get_world_size()
    size = -(-len(values) // world)
    padded = values.new_zeros(world * size)
    padded[: len(values)] = values
    received = torch.empty_like(padded)
    torch.distributed.all_to_all_single(received, padded)
    tree = TreeSum(levels)
    for row in received.view(world, size):
        tree.add([row])
    torch.distributed.all_gather_into_tensor(padded, tree.total()[0].contiguous())
    return padded[: len(values)]
