"""Training without Ray: a loop over steps that resumes, scores, logs and tracks as a job does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.data.take_survey import take_survey
from cm_ray.errors import UserError
from cm_ray.evaluation.conclusion import Conclusion, summary
from cm_ray.evaluation.from_settings import evaluation_labels, extractor_opener
from cm_ray.evaluation.scorer import LocalScorer
from cm_ray.metrics.score import Score
from cm_ray.networks.custom import custom_network
from cm_ray.networks.model import Model, ModelSpec, open_device
from cm_ray.own_code import Code, allow, allow_given
from cm_ray.recipes.initial_weights import planned_weights_warning
from cm_ray.recipes.recipe import Recipe, check_models_named
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.console import Progress, followed, say
from cm_ray.runs.lineage import write_lineage
from cm_ray.runs.remote_run import open_run
from cm_ray.runs.resources import Resources
from cm_ray.tracking import open_tracker, status_of
from cm_ray.training.arithmetic import slow_arithmetic
from cm_ray.training.batch import Batch
from cm_ray.training.communication import SingleWorker
from cm_ray.training.conclude import conclude
from cm_ray.training.engine import Engine
from cm_ray.training.loop import TrainingLoop
from cm_ray.training.memory import state_in_memory
from cm_ray.training.read_once import read_starting_models
from cm_ray.training.snapshots import disk_use
from cm_ray.training.specification import check_before_images, model_spec
from cm_ray.training.starting_models import prepare_teachers


@dataclass(frozen=True)
class TrainedStep:
    """A finished training step."""

    engine: Engine
    number: int
    """Number of finished steps."""
    loss_tensor: torch.Tensor
    gauges: Mapping[str, float]
    """Values of the schedules: num_scales N(k), target_decay mu(k), learning_rate ..."""

    @property
    def loss(self) -> float:
        """The mean loss of the batch. Reading it waits for the device."""
        return float(self.loss_tensor)

    def model(self, average: int = 0) -> Model:
        """Return a copy of the model with the weights of an average, given by its index."""
        return self.engine.averaged_model(average)


Callback = Callable[[TrainedStep], object]
"""A function that is called after every step; training stops when it returns False."""


class Trainer:
    """Training of a recipe in this process, as a loop over its steps.

    ``for step in Trainer(recipe, data, out="runs/x"): ...`` trains to the last step, from the last
    checkpoint in the directory if there is one. At the end it exports the best model, scores it, tracks
    and registers it. If the loop is left early, the run is closed, and another Trainer on the directory
    resumes it.

    data: images in any form that `load_images` takes; default: the recipe's data.path. out: the run
    directory, or its address (s3://bucket/run); default: the recipe's. network: a custom subclass of
    torch.nn.Module, which is constructed as Class(shape, classes). device: default: a GPU if there is one.
    callbacks: are called after every step. quiet: print nothing. own_code: networks and extractors of one's
    own, package.module:name or the classes and functions themselves, that a recipe from a file, a teacher
    or an initial model may name. Raises UserError on bad input, before the first step.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Any = None,
        *,
        out: str | Path = "",
        network: type[nn.Module] | None = None,
        device: str = "auto",
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
        own_code: Code | Iterable[Code] = (),
    ) -> None:
        if not isinstance(recipe, Recipe):
            raise UserError(
                f"The trainer takes a Recipe, not {recipe!r}: call cm_ray.recipes.ict_digits(), say."
            )
        allow(own_code)
        if network is not None:
            custom = custom_network(network, conditional=recipe.network.conditional)
            recipe = replace(recipe, network=custom)
        if data is not None and not isinstance(data, ImageSet):
            path = str(data) if isinstance(data, str | Path) else ""
            recipe = replace(recipe, data=replace(recipe.data, path=path))
        allow_given(recipe)
        check_models_named(recipe)
        check_before_images(recipe)
        self.run = open_run(out or recipe.run_dir, recipe.name)
        self.recipe = replace(recipe, run_dir=self.run.place)
        self.callbacks, self.quiet = callbacks, quiet
        self.device = self._open_device(device)
        self.data = self._load(data)

    def __iter__(self) -> Iterator[TrainedStep]:
        """Train, and yield every step."""
        with self.run.locked():
            self.run.check_same(self.recipe)
            tracker = open_tracker(self.recipe, self.run)
            status: Any = "KILLED"
            try:
                yield from self._steps()
                if not self.run.result_file.exists() and self._finished():
                    conclude(self.conclusion)
                if self.run.result_file.exists():
                    tracker.sync()
                    registered = tracker.register(self.scores[0] if self.scores else None)
                    if registered is not None:
                        self._say(f"{registered.uri}: {registered.reason}")
                    self._say(summary(self.run))
                    status = "FINISHED"
            except BaseException as error:
                status = status_of(error)
                raise
            finally:
                tracker.finish(status)

    def train(self) -> Trainer:
        """Train to the last step; return the trainer."""
        for _ in self:
            pass
        return self

    @property
    def scores(self) -> list[Score]:
        """The scores of the finished run, in the order of the recipe's samplers."""
        if not self.run.result_file.is_file():
            return []
        return [Score.from_file(row, self.run.result_file) for row in self.run.result()["scores"]]

    def _open_device(self, name: str) -> torch.device:
        """Return a device; "auto" is the one that an unfinished run began on, else a GPU if there is one."""
        began = None if self.run.result_file.exists() else Resources.load(self.run.root)
        if name != "auto" or began is None:
            return open_device(name)
        try:
            return open_device(began.device)
        except UserError as error:
            raise UserError(
                f"{self.run.root} was begun on {began.noun}, and there is none here; continue it where there "
                "is one, or with device cpu: then it agrees with an undisturbed run to rounding alone."
            ) from error

    def _load(self, data: Any) -> ImageSet:
        settings = self.recipe.data
        if data is None and not settings.path:
            raise UserError("No data is given; pass images, a folder, or the name of a data set.")
        given = settings.path if data is None else data
        if isinstance(given, str | Path):
            self._say(f"{take_survey(given, settings.read_options)}")
        images = load_images(given, **asdict(settings.read_options))
        self._say(images.describe())
        return images

    def _steps(self) -> Iterator[TrainedStep]:
        recipe, run = self.recipe, self.run
        spec = model_spec(recipe, self.data)
        opener = extractor_opener(recipe.evaluation)
        extractor = opener(self.device) if opener else None  # missing weights are an error at once
        if warning := planned_weights_warning(recipe):
            self._say(f"warning: {warning}")
        if use := disk_use(recipe, spec):
            self._say(use)
        evaluation_labels(recipe.evaluation, spec, self.data, self._say)
        prepare_teachers(recipe, spec, run, self._say)
        run.clean()
        run.claim(recipe)
        write_lineage(run, self.data)
        began = Resources.load(run.root)
        if began is None or began.device != self.device.type:
            Resources(device=self.device.type).save(run.root)
        scorer = LocalScorer(self.device, extractor)
        self.conclusion = Conclusion(
            recipe=recipe, run=run, spec=spec, data=self.data, scorer=scorer, say=self._say
        )
        if self._finished():
            return
        if warning := slow_arithmetic(recipe.precision, self.device):
            self._say(f"warning: {warning}")
        yield from self._watched(self._loop(spec))

    def _loop(self, spec: ModelSpec) -> TrainingLoop:
        recipe, run = self.recipe, self.run
        alone = SingleWorker()
        with state_in_memory():
            teacher, initial = read_starting_models(recipe, run, alone)
            engine = Engine(recipe, spec, device=self.device, teacher=teacher, initial=initial)
        return TrainingLoop(
            recipe=recipe,
            run=run,
            engine=engine,
            batches=self._batches,
            data=self.data,
            communication=alone,
        )

    def _watched(self, loop: TrainingLoop) -> Iterator[TrainedStep]:
        progress = Progress(self.recipe.steps)
        consumers = () if self.quiet else (progress.show,)
        try:
            with followed(self.run, *consumers):
                for stats in loop.steps():
                    step = TrainedStep(loop.engine, stats.step, stats.loss, stats.gauges)
                    answers = [callback(step) for callback in self.callbacks]
                    yield step
                    if any(answer is False for answer in answers):
                        return
        finally:
            progress.close()

    def _batches(self, start_step: int) -> Iterable[Batch]:
        recipe = self.recipe
        batches = self.data.batches(seed=recipe.seed, batch_size=recipe.batch_size, start_step=start_step)
        return (Batch(images, labels) for images, labels in batches)

    def _finished(self) -> bool:
        """Return True if the last step is done and scored."""
        store = CheckpointStore(self.run.checkpoints, self.recipe.checkpoint.keep)
        steps = store.steps()
        return bool(steps) and steps[-1] >= self.recipe.steps and self.recipe.steps in self.run.scored_steps()

    def _say(self, text: str) -> None:
        if not self.quiet:
            say(text)
