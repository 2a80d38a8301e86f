"""The training loop of a worker, with or without Ray: steps, log, checkpoints and scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cm_ray.evaluation.reference import ScoredAgainst
from cm_ray.networks.initial_weights import MOST_SHARE
from cm_ray.networks.model import save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.snapshots import SnapshotStore
from cm_ray.storage.files import remove
from cm_ray.training.batch import Batch, StepStats
from cm_ray.training.communication import Communication
from cm_ray.training.engine import Engine
from cm_ray.training.evaluator import Evaluator
from cm_ray.training.log import TrainingLog
from cm_ray.training.memory import training_in_memory
from cm_ray.training.notices import Notices
from cm_ray.training.read_once import read_checkpoint
from cm_ray.training.snapshots import SnapshotTaker

Batches = Callable[[int], Iterable[Batch]]
"""A function that returns the worker's batches from a given step on."""


@dataclass(frozen=True, kw_only=True)
class TrainingLoop:
    """The loop of one worker; all sample for the scores, and rank 0 writes log, checkpoints and scores."""

    recipe: Recipe
    run: RunDirectory
    engine: Engine
    batches: Batches
    data: ScoredAgainst
    """The training data, which is the reference of the scores."""
    communication: Communication
    stoppable: bool = False
    """If True, the training stops when the run's stop file exists."""

    def steps(self) -> Iterator[StepStats]:
        """Train from the last checkpoint to the last step; yield each step after its log and checkpoint.

        Ends before, after a checkpoint, when there is room for more workers. Raises UserError when the loss
        or a weight is not finite, a checkpoint cannot be written, or the memory is too small.
        """
        with training_in_memory():
            yield from self._steps()

    def _steps(self) -> Iterator[StepStats]:
        store = CheckpointStore(self.run.checkpoints, self.recipe.checkpoint.keep)
        snapshots = SnapshotTaker(self.engine, SnapshotStore(self.run.snapshots))
        scores = _Scores(self, store)
        self._resume(store, snapshots, scores)
        log = TrainingLog(self.run, self.recipe, self.communication, self._first)
        notices = Notices(self.communication, self.engine.step)
        try:
            for stats in self.engine.train(self.batches(self.engine.step)):
                log.add(stats)
                if self._first:
                    snapshots.take()
                if self.engine.round_ended() and self._first:
                    self._save_round()
                notice = notices.new(stats.step)
                due = notice or notices.room or self._checkpoint_due(stats.step)
                stop = False
                if due or stats.step == 1 or self._due(stats.step, self.recipe.log_every):
                    log.write(stats)
                    self._publish()
                    stop = self._stop_requested()
                if due and not stop:
                    if self._first:
                        snapshots.wait()  # a run that goes on from the checkpoint has all before it
                    self._checkpoint(stats.step, store, scores, at_once=notice or notices.room)
                    log.resume()
                yield stats
                if stop or notices.room:
                    break
        finally:
            with contextlib.closing(store), contextlib.closing(snapshots):
                pass

    @property
    def _first(self) -> bool:
        return self.engine.share.rank == 0

    def _stop_requested(self) -> bool:
        """Return True on all workers if the stop file exists on rank 0, so that all stop at the same step."""
        return self.stoppable and self.communication.broadcast(self._first and self.run.stop_file.exists())

    def _resume(self, store: CheckpointStore, snapshots: SnapshotTaker, scores: _Scores) -> None:
        """Load the last checkpoint of rank 0's list, which alone reads it, on all workers."""
        steps = store.steps() if self._first else []
        step = self.communication.broadcast(steps[-1] if steps else 0)
        if step:
            self.engine.restore(read_checkpoint(store, step, self.run, self.communication))
        if self._first:
            store.clean()
            self.run.forget_metrics_after(step)
            store.forget_after(step)
            snapshots.resume(step)
        due = step > 0 and self._due(step, self.recipe.evaluation.every)
        if self.communication.broadcast(self._first and due and step not in self.run.scored_steps()):
            scores.evaluate(step)  # the run was killed between the checkpoint and its score
        self.communication.barrier()

    def _publish(self) -> None:
        """Write what is new to the run's address, if it has one."""
        if self._first:
            self.run.publish()

    def _due(self, step: int, every: int) -> bool:
        return step == self.recipe.steps or (every > 0 and step % every == 0)

    def _checkpoint_due(self, step: int) -> bool:
        return self._due(step, self.recipe.checkpoint.every)

    def _checkpoint(self, step: int, store: CheckpointStore, scores: _Scores, *, at_once: bool) -> None:
        """Save the state on rank 0, score it and report it on all, because both wait for all ranks.

        at_once: wait until it is written.
        """
        if self._first:
            self.run.published()  # a checkpoint that is on its way is not removed before it is there
            store.wait()  # else the host holds two copies of the state
            store.save(self.engine.checkpoint())
        else:
            self.engine.check_finite()
            self.engine.check_weights()
        if self._due(step, self.recipe.evaluation.every):
            scores.evaluate(step)
        if self._first and (at_once or step == self.recipe.steps):
            store.wait()
            self._publish()
        self.communication.report(step)

    def _save_round(self) -> None:
        """Save the model of a finished round of progressive distillation, by its number of sampling steps."""
        self.engine.check_finite()
        self.engine.check_weights()
        folder = self.run.rounds / str(self.engine.sampling_steps())
        remove(folder)  # a resumed run may end the round a second time
        weights = {name: tensor.cpu() for name, tensor in self.engine.averaged_weights().items()}
        save_model(folder, self.engine.averaged_spec(), weights)


class _Scores:
    """Computes scores during training, on all ranks; the first score decides the best checkpoint."""

    def __init__(self, loop: TrainingLoop, store: CheckpointStore) -> None:
        self.loop, self.store, engine = loop, store, loop.engine
        self.evaluator = Evaluator(loop.recipe, loop.data, engine.device, engine.share, loop.communication)

    def evaluate(self, step: int) -> None:
        """Write a sample grid, and a row of scores to the log, for a step; all ranks call it."""
        engine, run = self.loop.engine, self.loop.run
        model = engine.averaged_model()
        scores = self.evaluator.evaluate(model, step, run.samples)
        if engine.share.rank > 0:
            return
        self.store.wait()  # best.json must not name a checkpoint that is not yet written
        if scores and engine.in_last_round():  # models of other rounds have other numbers of sampling steps
            self.store.offer_best(step, scores[0])
        row = {"step": step, "scores": [score.to_row() for score in scores]}
        if (share := model.spec.initial_share) > MOST_SHARE:
            row["initial_share"] = round(share, 4)
        run.append_metrics(row)
        run.publish()
