"""Scores of a model, or of anyone's images, against a data set."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from cm_ray.cluster.actors import plan_actors
from cm_ray.cluster.gathered import Gathered, Wanted
from cm_ray.cluster.generate import SamplerPool
from cm_ray.cluster.launch import connected, node_resources
from cm_ray.cluster.prepare import prepare_shards
from cm_ray.cluster.progress import say, shown
from cm_ray.cluster.references import Yardstick, reference_set, run_of, yardstick
from cm_ray.cluster.remembered import Remembered
from cm_ray.config import DataConfig, MeasuringConfig
from cm_ray.data.making import shard_name
from cm_ray.data.shards import Manifest, write_shard
from cm_ray.errors import UserError
from cm_ray.files import folder_written_aside, read_json, remove, write_json, written_aside
from cm_ray.metrics.frechet import bias_warning
from cm_ray.metrics.measures import NEEDS, SampleSet, check_kinds, measure_all
from cm_ray.metrics.score import Score, measured_score, score_key
from cm_ray.networks.model import Model, load_model, sampling_of
from cm_ray.run_directory import RunDirectory, default_run_dir
from cm_ray.sampling import Sampling
from cm_ray.tracking import Group
from cm_ray.tracking.locate import find_model
from cm_ray.training.pictures import save_arrays, save_grid
from cm_ray.training.sampling import Request

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


@dataclass(frozen=True, slots=True)
class _Samples:
    """A set of samples, or of images that are taken as such."""

    name: str
    """As a part of a file's name."""
    sampler: str
    evaluations: int
    seed: int
    parts: list[Gathered]

    def joined(self, what: Literal["images", "features"]) -> Tensor | None:
        """Return the images or the features of all parts; None when they were not wanted."""
        tensors = [tensor for part in self.parts if (tensor := getattr(part, what)) is not None]
        return torch.cat(tensors) if tensors else None

    def as_set(self) -> SampleSet:
        """Return what scores are made of."""
        groups = [part.statistics for part in self.parts if part.statistics is not None]
        return SampleSet(groups=groups, features=self.joined("features"), images=self.joined("images"))


def evaluate(settings: Evaluation) -> tuple[RunDirectory, list[Score]]:
    """Score a model or images; return where everything is and the scores.

    In the run directory: scores.json, a row a score, with those of earlier calls; scores.md; sample grids;
    what was kept. The same call goes on after a kill. Raises UserError on bad input.
    """
    model = find_model(settings.source, settings.tracking_uri)
    measure = yardstick(settings, run_of(model) if model else None)
    check_kinds(settings.scores, measure.extractor, settings.samples or None)
    name = Path(settings.source.replace("models:/", "").rstrip("/")).stem
    run = RunDirectory(
        Path(settings.run_dir).absolute() if settings.run_dir else default_run_dir(f"evaluate-{name}")
    )
    with run.locked():
        group = Group(run.root, name=run.root.name, uri=settings.tracking_uri, experiment=EXPERIMENT)
        try:
            with connected():
                scores = _Evaluating(settings, measure, model, run).scores()
            _tell(group, settings, run, scores)
        except BaseException:
            group.finish("FAILED")
            raise
        group.finish("FINISHED")
    return run, scores


class _Evaluating:
    """One evaluation on a connected cluster."""

    def __init__(
        self, settings: Evaluation, measure: Yardstick, model: Path | None, run: RunDirectory
    ) -> None:
        self.settings, self.extractor, self.run = settings, measure.extractor, run
        self.needs = {NEEDS[kind] for kind in settings.scores}
        self.wanted: Wanted = frozenset(self.needs | ({"images"} if settings.keep != "none" else set()))
        self.shards, self.manifest = prepare_shards(measure.data)
        self.model = load_model(model) if model else None
        self.model_folder = model
        self.images = None if model else prepare_shards(DataConfig(path=settings.source, size=settings.size))
        self._check_shapes()
        self.opener = measure.opener
        self.actors = plan_actors(settings.actors, node_resources())
        say(
            f"{run.root}: {settings.source} against {self.manifest.count} images of {self.manifest.source}, "
            f"{self.extractor.name}, {self.actors}"
        )

    def _check_shapes(self) -> None:
        theirs = self.images[1].shape if self.images else self.model.spec.shape if self.model else None
        if theirs != self.manifest.shape:
            raise UserError(
                f"{self.settings.source} has images of {_shape(theirs)} and the data of "
                f"{_shape(self.manifest.shape)}: give --size, or other --data."
            )

    def scores(self) -> list[Score]:
        """Measure, write and return all scores."""
        scores: list[Score] = []
        with SamplerPool(self.opener, self.actors) as pool:
            reference = reference_set(pool, self.shards, self.manifest, self.extractor, self.needs)
            for samples in self._sample_sets(pool):
                scores += self._measured(samples, reference)
                _write_scores(self.run.root, scores)
        remove(self.run.root / "work")
        return scores

    def _measured(self, samples: _Samples, reference: SampleSet) -> list[Score]:
        count = sum(part.count for part in samples.parts)
        if warning := bias_warning(count, self.extractor.dim):
            say(f"warning: {warning}")
        key = score_key(
            self.extractor,
            n=count,
            seed=samples.seed,
            reference=self.manifest.fingerprint,
            sampler=samples.sampler,
            evaluations=samples.evaluations,
        )
        measured = measure_all(self.settings.scores, samples.as_set(), reference, self.extractor)
        scores = [measured_score(kind, one, key) for kind, one in measured.items()]
        for score in scores:
            say(f"{score.metric}: {score.value:.4g} ± {score.error:.2g}")
        return scores

    def _sample_sets(self, pool: SamplerPool) -> Iterator[_Samples]:
        """Yield the images that were given, or samples by every sampler."""
        if self.images is not None:
            shards, manifest = self.images
            with shown("image") as progress:
                parts = pool.read(shards, manifest, self.wanted, progress, GROUPS)
            yield _Samples("images", f"images of {manifest.source}", 0, 0, parts)
        for sampling in self._samplings():
            yield self._sampled(pool, sampling)

    def _samplings(self) -> list[Sampling]:
        if self.model is None:
            return []
        spec = self.model.spec
        texts = self.settings.samplers or (
            "own",
            *(f"multistep:{len(taus) + 1}" for taus in spec.time_points),
        )
        return [sampling_of(spec, text) for text in texts]

    def _sampled(self, pool: SamplerPool, sampling: Sampling) -> _Samples:
        """Sample in parts; keep what is to be kept, and a grid."""
        assert self.model is not None
        assert self.model_folder is not None
        settings, model = self.settings, pool.put(self.model_folder)
        remembered = Remembered(pool, model, self.extractor, self.wanted, self.run.root / "work")
        say(f"{sampling.text}:")
        with shown("image") as progress:
            made = dict(remembered.generate_all(self._requests(sampling), progress))
        parts = [made[place] for place in sorted(made)]
        samples = _Samples(sampling.file_name, sampling.text, sampling.evaluations, settings.seed, parts)
        grid = Request(
            count=settings.grid**2, seed=settings.seed, sampling=sampling, unit=settings.batch_size
        )
        images = pool.generate(model, grid, frozenset(["images"])).images
        assert images is not None
        save_grid(images, self.run.samples / f"{samples.name}.png", columns=settings.grid)
        _keep(settings, self.run.samples / samples.name, samples, self.model, self.manifest)
        return samples

    def _requests(self, sampling: Sampling) -> list[Request]:
        """Return a request for each part of the samples, of as equal counts as can be."""
        count = self.settings.samples or self.manifest.count
        edges = [count * i // GROUPS for i in range(GROUPS + 1)]
        return [
            Request(
                count=stop - first,
                first=first,
                seed=self.settings.seed,
                sampling=sampling,
                unit=self.settings.batch_size,
            )
            for first, stop in itertools.pairwise(edges)
            if stop > first
        ]


def _shape(shape: tuple[int, int, int] | None) -> str:
    return "x".join(map(str, shape or ()))


def _keep(settings: Evaluation, stem: Path, samples: _Samples, model: Model, manifest: Manifest) -> None:
    """Write all samples where they are wanted: STEM.npz, or shards in the folder STEM."""
    if settings.keep == "none":
        return
    images = samples.joined("images")
    assert images is not None
    labels = model.sample_labels(torch.arange(len(images)), settings.seed)
    if settings.keep == "npz":
        save_arrays(images, stem.with_name(stem.name + ".npz"), labels)
        return
    if labels is None:
        labels = torch.full((len(images),), -1)
    with folder_written_aside(stem) as aside:
        shard = write_shard(aside / shard_name(0), images.numpy(), labels.numpy())
        recipe = hashlib.sha256(repr((samples.sampler, shard.content)).encode()).hexdigest()
        Manifest(
            shape=manifest.shape,
            class_names=model.spec.class_names if model.spec.classes else (),
            source=f"samples-{samples.name}",
            recipe=recipe,
            skipped=0,
            shards=(shard,),
        ).save(aside)


def _write_scores(folder: Path, scores: Sequence[Score]) -> None:
    """Write scores.json, with what earlier calls measured otherwise, and scores.md."""
    file = folder / "scores.json"
    earlier = [Score.from_row(row) for row in (read_json(file) if file.is_file() else [])]
    kept = {(str(score.measuring), score.metric): score for score in [*earlier, *scores]}
    write_json(file, [score.to_row() for score in kept.values()])
    with written_aside(folder / "scores.md") as aside:
        aside.write_text(table(list(kept.values())))


def table(scores: Sequence[Score]) -> str:
    """Return scores as a Markdown table."""
    lines = ["| score | sampler | value | ± | samples | reference |", "|---|---|---:|---:|---:|---|"]
    for score in scores:
        key, error = score.key, "" if score.error is None else f"{score.error:.2g}"
        lines.append(
            f"| {score.name} | `{key['sampler']}` | {score.value:.4g} | {error} | {key['n']} "
            f"| {key['reference'][:12]} |"
        )
    return "\n".join([*lines, ""])


def _tell(group: Group, settings: Evaluation, run: RunDirectory, scores: Sequence[Score]) -> None:
    files = [run.root / "scores.json", run.root / "scores.md", *sorted(run.samples.glob("*.png"))]
    params = {"source": settings.source, "data": settings.data, "reference": scores[0].key["reference"]}
    group.log(params=params, metrics={score.metric: score.value for score in scores}, files=files)
