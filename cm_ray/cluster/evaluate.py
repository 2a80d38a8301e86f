"""Scores of a model, or of anyone's images, against a data set."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from cm_ray.cluster.actors import plan_actors
from cm_ray.cluster.gathered import Gathered, Wanted, joined
from cm_ray.cluster.generate import PutModel, SamplerPool
from cm_ray.cluster.launch import connected, node_resources
from cm_ray.cluster.prepare import prepare_shards
from cm_ray.cluster.progress import say, shown
from cm_ray.cluster.references import Yardstick, reference_set, run_of, yardstick
from cm_ray.cluster.remembered import Remembered
from cm_ray.config import DataConfig, MeasuringConfig
from cm_ray.data.shards import is_shard_folder
from cm_ray.data.sources import open_source
from cm_ray.errors import UserError
from cm_ray.files import remove
from cm_ray.metrics.frechet import bias_warning
from cm_ray.metrics.measures import NEEDS, Needs, SampleSet, check_kinds, measure_all
from cm_ray.metrics.score import Score, measured_score, score_key
from cm_ray.networks.model import SPEC, ModelSpec, load_model, network_digest, sampling_of
from cm_ray.run_directory import RunDirectory, default_run_dir
from cm_ray.sampling import Sampling
from cm_ray.tracking import Group
from cm_ray.tracking.locate import find_model
from cm_ray.training.kept_samples import file_name, keep_samples
from cm_ray.training.pictures import save_grid
from cm_ray.training.sampling import Request
from cm_ray.training.scored import Scored

EXPERIMENT = "cm_ray"
GROUPS = 20
"""Parts that samples are made in: each is kept when it is done, and the error is a bootstrap over them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(MeasuringConfig):
    """What to score, and how."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A model (run directory, model folder, models:/NAME@ALIAS), or images: a folder of them, Parquet or
    shards, an .npz, the name of a data set."""
    scores: tuple[Literal["FD", "FDinf", "KID", "IS", "precision", "recall", "SWD"], ...] = ("FD",)
    """Fréchet distance (FID, if it is one), extrapolated to infinitely many samples, kernel distance,
    Inception score, improved precision and recall, sliced Wasserstein distance."""
    samples: int = 0
    """How many samples of a model; 0: as many as there are images to compare with."""
    samplers: tuple[str, ...] = ()
    """How to sample: one-step, multistep@2.0,0.8, multistep:4, heun:18 …; empty: the model's own sampler, and
    its own time points."""
    seed: int = 1
    """Seed of the noise and the labels. Checkpoints are chosen on a run's seed, 0 if it is not set."""
    keep: Literal["none", "npz", "shards"] = "none"
    """Whether the samples are kept: as OpenAI's tools want them, or as shards, to be read as data."""
    grid: int = 10
    """Samples per side of a grid picture."""


def evaluate(settings: Evaluation) -> tuple[RunDirectory, list[Score]]:
    """Score a model or images; return where everything is and the scores.

    In the run directory, which belongs to one source: scores.json, a row a score, with those of earlier
    calls; scores.md; sample grids; what was kept. The same call goes on after a kill. Raises UserError on bad
    input.
    """
    tracking_uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    model = _find_model(settings, "" if tracking_uri == "none" else tracking_uri)
    _check(settings, is_model=model is not None)
    measure = yardstick(settings, run_of(model.folder) if model else None)
    check_kinds(settings.scores, measure.extractor, settings.samples or None)
    named = Path(settings.run_dir).absolute() if settings.run_dir else None
    run = RunDirectory(named or default_run_dir(f"evaluate-{_name(settings.source)}"))
    group = Group(run.root, name=run.root.name, uri=tracking_uri, experiment=EXPERIMENT)
    with run.locked(), connected():
        evaluating = _Evaluating(settings, measure, model, run)
        try:
            scores = evaluating.scores()
            evaluating.tell(group, scores)
        except BaseException:
            group.finish("FAILED")
            raise
        group.finish("FINISHED")
    return run, scores


@dataclass(frozen=True, slots=True)
class _Model:
    """A model, and how to sample from it."""

    folder: Path
    spec: ModelSpec
    samplings: list[Sampling]


def _find_model(settings: Evaluation, tracking_uri: str) -> _Model | None:
    """Return the model that the source is; None when it is none.

    Raises UserError on samplers that do not fit it.
    """
    folder = find_model(settings.source, tracking_uri)
    if folder is None:
        return None
    spec = load_model(folder).spec
    own = ("own", *(f"multistep:{len(taus) + 1}" for taus in spec.time_points))
    samplings = [sampling_of(spec, text) for text in settings.samplers or own]
    return _Model(folder, spec, list({sampling.text: sampling for sampling in samplings}.values()))


def _check(settings: Evaluation, *, is_model: bool) -> None:
    """Raise UserError, naming the setting, on what cannot be evaluated."""
    source, samples = settings.source, settings.samples
    for holds, sentence in [
        (bool(settings.scores), "--scores needs at least one, such as FD"),
        (settings.grid >= 1, f"--grid must be at least 1, not {settings.grid}"),
        (settings.batch_size >= 1, f"--batch-size must be at least 1, not {settings.batch_size}"),
        (
            samples == 0 or samples >= 2,
            f"--samples must be at least 2 for a score, or 0 for as many as there are images, not {samples}",
        ),
        (
            is_model or (samples == 0 and not settings.samplers and settings.keep == "none"),
            f"{source} is no model, and --samples, --samplers and --keep are for models: leave them out",
        ),
    ]:
        if not holds:
            raise UserError(sentence + ".")
    if not is_model and not is_shard_folder(Path(source).expanduser()):
        open_source(source)  # a mistyped name need not wait for Ray


def _name(source: str) -> str:
    """Return what to call it: demo of runs/demo and of runs/demo/model, NAME-3 of models:/NAME/3."""
    if source.startswith("models:"):
        return source.removeprefix("models:").strip("/").replace("/", "-")
    path = Path(source).expanduser().absolute()
    if path.is_file():
        return path.stem
    return path.parent.name if path.name == "model" and (path / SPEC).is_file() else path.name


@dataclass(frozen=True)  # without slots: `as_set` is kept beside the fields
class _Samples:
    """A set of samples, or of images that are taken as such."""

    sampler: str
    evaluations: int
    seed: int
    parts: list[Gathered]

    @functools.cached_property
    def as_set(self) -> SampleSet:
        """What scores are made of."""
        groups = [part.statistics for part in self.parts if part.statistics is not None]
        features, images = joined(self.parts, "features"), joined(self.parts, "images")
        return SampleSet(groups=groups, features=features, images=images)


class _Evaluating:
    """One evaluation on a connected cluster."""

    def __init__(
        self, settings: Evaluation, measure: Yardstick, model: _Model | None, run: RunDirectory
    ) -> None:
        self.settings, self.measure, self.model, self.run = settings, measure, model, run
        self.extractor = measure.extractor
        needed = {NEEDS[kind] for kind in settings.scores}
        self.wanted: Wanted = frozenset(needed | ({"images"} if settings.keep != "none" else set()))
        self.shards, self.manifest = prepare_shards(measure.data)
        self.images = None if model else prepare_shards(DataConfig(path=settings.source, size=settings.size))
        self.count = self.images[1].count if self.images else settings.samples or self.manifest.count
        self._check_images()
        self.actors = plan_actors(settings.actors, node_resources())
        run.clean()
        content = self.images[1].fingerprint if self.images else network_digest(model.folder) if model else ""
        self.scored = Scored(run, settings.source, content)
        say(
            f"{run.root}: {settings.source} against {self.manifest.count} images of {self.manifest.source}, "
            f"{self.extractor.name}, {self.actors}"
        )

    def _check_images(self) -> None:
        """Raise UserError when they are too few, or of another shape than the data."""
        theirs = self.images[1].shape if self.images else self.model.spec.shape if self.model else None
        if theirs != self.manifest.shape:
            raise UserError(
                f"{self.settings.source} has images of {_shape(theirs)} and the data of "
                f"{_shape(self.manifest.shape)}: give --size, or other --data."
            )
        if min(self.count, self.manifest.count) < 2:
            raise UserError(
                f"A score needs two images on each side: {self.settings.source} gives {self.count}, and "
                f"{self.manifest.source} has {self.manifest.count}; take more."
            )
        check_kinds(self.settings.scores, self.extractor, self.count)

    def scores(self) -> list[Score]:
        """Measure, write and return all scores."""
        scores: list[Score] = []
        needs = _needs_of_reference(self.settings.scores)
        with SamplerPool(self.measure.opener, self.actors) as pool:
            reference = SampleSet()
            if needs:
                reference = reference_set(pool, self.shards, self.manifest, self.extractor, needs)
            for samples in self._sample_sets(pool):
                measured = self._measured(samples, reference)
                self.scored.add(measured)
                scores += measured
                del samples  # before the next ones are made
        remove(self.run.root / "work")
        return scores

    def tell(self, group: Group, scores: Sequence[Score]) -> None:
        """Log all of it to MLflow."""
        root, params = self.run.root, {"source": self.settings.source, "data": self.measure.data.path}
        group.log(
            params=params | {"reference": self.manifest.fingerprint},
            metrics={score.metric: score.value for score in scores},
            files=[root / "scores.json", root / "scores.md", *sorted(self.run.samples.glob("*.png"))],
        )

    def _measured(self, samples: _Samples, reference: SampleSet) -> list[Score]:
        kinds = self.settings.scores
        if "FD" in kinds and (warning := bias_warning(self.count, self.extractor.dim)):
            say(f"warning: {warning}")
        key = score_key(
            self.extractor,
            n=self.count,
            seed=samples.seed,
            reference=self.manifest.fingerprint,
            sampler=samples.sampler,
            evaluations=samples.evaluations,
        )
        say(f"measuring {', '.join(kinds)}:")  # minutes, of 2,048 features
        measured = measure_all(kinds, samples.as_set, reference, self.extractor)
        scores = [measured_score(kind, one, key) for kind, one in measured.items()]
        for score in scores:
            say(f"{score.metric}: {score.value:.4g} ± {score.error:.2g}")
        return scores

    def _sample_sets(self, pool: SamplerPool) -> Iterator[_Samples]:
        """Yield the images that were given, or samples by every sampler."""
        if self.images is not None:
            shards, manifest = self.images
            say(f"images of {manifest.source}:")
            with shown("image") as progress:
                parts = pool.read(shards, manifest, self.wanted, progress, GROUPS)
            yield _Samples(f"images of {manifest.source}", 0, 0, parts)
        if self.model is not None:
            put = pool.put(self.model.folder)
            for sampling in self.model.samplings:
                yield self._sampled(pool, put, self.model, sampling)

    def _sampled(self, pool: SamplerPool, put: PutModel, model: _Model, sampling: Sampling) -> _Samples:
        """Sample in parts; keep what is to be kept, and a grid."""
        settings, stem = self.settings, self.run.samples / file_name(sampling)
        remembered = Remembered(pool, put, self.extractor, self.wanted, self.run.root / "work")
        say(f"{sampling.text}:")
        with shown("image") as progress:
            made = dict(remembered.generate_all(self._requests(sampling), progress))
        parts = [made[place] for place in sorted(made)]
        samples = _Samples(sampling.text, sampling.evaluations, settings.seed, parts)
        grid = self._request(sampling, 0, settings.grid**2)
        images = pool.generate(put, grid, frozenset(["images"])).images
        assert images is not None
        save_grid(images, stem.with_name(stem.name + ".png"), columns=settings.grid)
        if settings.keep != "none":
            images = samples.as_set.images
            assert images is not None
            labels = load_model(model.folder).sample_labels(torch.arange(self.count), settings.seed)
            keep_samples(images, stem, settings.keep, model.spec, labels)
        return samples

    def _requests(self, sampling: Sampling) -> list[Request]:
        """Return a request for each part of the samples, of as equal counts as can be."""
        edges = [self.count * i // GROUPS for i in range(GROUPS + 1)]
        parts = itertools.pairwise(edges)
        return [self._request(sampling, first, stop - first) for first, stop in parts if stop > first]

    def _request(self, sampling: Sampling, first: int, count: int) -> Request:
        settings = self.settings
        return Request(
            count=count, first=first, seed=settings.seed, sampling=sampling, unit=settings.batch_size
        )


def _needs_of_reference(kinds: Sequence[str]) -> set[Needs]:
    """Return what scores need of the data: FDinf its statistics, whatever it needs of samples, IS nothing."""
    return {"statistics" if kind == "FDinf" else NEEDS[kind] for kind in kinds if kind != "IS"}


def _shape(shape: tuple[int, int, int] | None) -> str:
    return "x".join(map(str, shape or ()))
