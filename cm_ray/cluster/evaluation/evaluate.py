"""Scores of a model, or of given images, against a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from cm_ray.cluster.evaluation.evaluate_plan import (
    EvaluatedModel,
    check_evaluation,
    check_scored,
    evaluated_model,
    in_words,
    scored_against,
    scored_data,
)
from cm_ray.cluster.evaluation.scored_samples import ScoredSamples
from cm_ray.cluster.pool.actor import PutModel
from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import (
    ScoringSetup,
    name_of,
    reference_set,
    run_of,
    scored_shape,
    scoring_setup,
    tracking_uris,
)
from cm_ray.cluster.pool.result import Outputs
from cm_ray.cluster.pool.sizing import actors_for, batch_for
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.drawing.kept_samples import keep_samples
from cm_ray.drawing.model_labels import scored_labels
from cm_ray.drawing.pictures import save_grid
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.score_folder import Scored
from cm_ray.evaluation.scorer import MOST_SAMPLES, sample_count
from cm_ray.evaluation.statistics_file import StatisticsFile
from cm_ray.metrics.frechet import GROUPS, bias_warning
from cm_ray.metrics.score import Score, score_from_estimate, score_key
from cm_ray.metrics.score_kinds import NEEDS, Needs, SampleSet, check_kinds, estimate_all
from cm_ray.networks.formats.reading import network_digest
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.recipes.sections import EXPERIMENT
from cm_ray.runs.console import say, shown
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.remote_run import open_run
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.text import file_name, text_of
from cm_ray.storage.files import remove
from cm_ray.tracking import RunGroup
from cm_ray.tracking.group import group_of


def evaluate(settings: Evaluation) -> tuple[RunDirectory, list[Score]]:
    """Score a model or images; return the run directory and the scores.

    A run directory belongs to one source. It holds scores.json (a row for each score, of earlier calls too),
    scores.md, sample grids and the samples that are kept. Each score is written as soon as it is measured,
    and the same call resumes an interrupted one. Raises UserError on bad input.
    """
    tracking_uri, registry = tracking_uris(settings)
    model = evaluated_model(settings, registry)
    check_evaluation(settings, is_model=model is not None)
    setup = scoring_setup(settings, run_of(model.folder) if model else None)
    check_kinds(settings.scores, setup.extractor, settings.samples or None)
    run = open_run(settings.run_dir, f"evaluate-{name_of(settings.source)}")
    scores: list[Score] = []
    with run.locked():
        run.check_owner(run.source_file)
        with connected():
            evaluating = _Evaluating(settings, setup, model, run)
            group = evaluating.group(tracking_uri)
            with group.closed():
                try:
                    for score in evaluating.scores():
                        scores.append(score)
                        run.publish()
                finally:
                    evaluating.log(group, scores)
    return run, scores


class _Evaluating:
    """One evaluation on a connected cluster."""

    def __init__(
        self, settings: Evaluation, setup: ScoringSetup, model: EvaluatedModel | None, run: RunDirectory
    ) -> None:
        self.settings, self.setup, self.model, self.run = settings, setup, model, run
        self.extractor = setup.extractor
        self.work = run.root / "evaluation-work"
        self.reference = scored_against(setup, settings.scores)
        self.images = None if model else prepare_shards(scored_data(settings))
        self.count = (
            self.images[1].count if self.images else sample_count(settings.samples, self.reference.count)
        )
        self.outputs = self._outputs()
        self._check_images()
        self.labels = scored_labels(model.spec, self.reference, setup.labels, say) if model else None
        self.actors = actors_for(settings.actors, self.work)
        asked = settings.batch_size, settings.precision
        self.unit = batch_for(*asked, model.spec, self.actors, self.work) if model else 0
        run.clean()
        content = self.images[1].fingerprint if self.images else network_digest(model.folder) if model else ""
        self.scored = Scored(run, settings.source, content)
        say(
            f"{run.root}: {settings.source} against {in_words(self.reference)}, "
            f"{self.extractor.name}, {self.actors}"
        )

    def _check_images(self) -> None:
        """Raise UserError when the images are too few, or when their shape differs from the data's."""
        kinds, against = self.settings.scores, self.reference
        if isinstance(against, StatisticsFile):
            check_kinds(kinds, self.extractor, self.count)
            return
        check_scored(self.settings, self._shape(), self.count, against)
        check_kinds(kinds, self.extractor, self.count, against.count)

    def _reference_set(self, pool: SamplerPool, needs: set[Needs]) -> SampleSet:
        against = self.reference
        if isinstance(against, StatisticsFile):
            return against.as_set()
        return reference_set(pool, against.folder, against.manifest, self.extractor, needs)

    def _outputs(self) -> Outputs:
        """Return what is needed of the samples, or of the images that are scored.

        Features of few images tell the error of a Fréchet distance exactly; many would not fit on the driver.
        """
        needed = {NEEDS[kind] for kind in self.settings.scores}
        if self.images and self.count <= MOST_SAMPLES:
            needed = {"features" if need == "statistics" else need for need in needed}
        return frozenset(needed | ({"images"} if self.settings.keep != "none" else set()))

    def _shape(self) -> tuple[int, int, int]:
        """Return the shape (c, h, w) of the images that are scored."""
        if self.images:
            return self.images[1].shape
        assert self.model is not None
        return scored_shape(self.model.spec, self.settings)

    def scores(self) -> Iterator[Score]:
        """Yield every score after it has been measured and written."""
        self._warn()
        needs = _needs_of_reference(self.settings.scores)
        with SamplerPool(self.setup.opener, self.actors) as pool:
            reference = SampleSet()
            if needs:
                reference = self._reference_set(pool, needs)
            for samples in self._sample_sets(pool):
                yield from self._measured(samples, reference)
                del samples  # frees the memory before the next samples are made
        remove(self.work)

    def group(self, uri: str) -> RunGroup:
        """Return the MLflow run of all scores with the same shared part of their keys."""
        shared = hashlib.sha256(repr(sorted(self._shared_key().items())).encode()).hexdigest()
        return group_of(self.run, uri, EXPERIMENT, self.run.root / "tracking" / shared[:12])

    def log(self, group: RunGroup, scores: Sequence[Score]) -> None:
        """Log the scores, their files and the sample grids to MLflow."""
        root, params = self.run.root, {"source": self.settings.source, "data": self.setup.data.path}
        group.log(
            params=params | self._shared_key(),
            metrics={score.metric: score.value for score in scores},
            files=[root / "scores.json", root / "scores.md", *sorted(self.run.samples.glob("*.png"))],
        )

    def _shared_key(self) -> dict[str, Any]:
        """Return the entries of the scores' keys that are not in the names of their metrics."""
        extractor = self.extractor
        return {
            "reference": self.reference.fingerprint,
            "labels": self._labels_text,
            "seed": 0 if self.images else self.settings.seed,
            "extractor": extractor.name,
            "weights_sha256": extractor.weights_sha256,
            "preprocess": extractor.preprocess,
        }

    @property
    def _labels_text(self) -> str:
        return self.labels.text if self.labels else "none"

    def _warn(self) -> None:
        """Warn of biased Fréchet distances, and of averages that hardly learned.

        FDinf removes the bias of the samples, not of the reference.
        """
        kinds, dim, against = self.settings.scores, self.extractor.dim, self.reference
        warnings = [bias_warning(self.count, dim)] if "FD" in kinds else []
        if self.model is not None:
            warnings.append(initial_weights_warning(self.model.spec, self.settings.source))
        if {"FD", "FDinf"} & {*kinds} and against.count:
            warnings.append(bias_warning(against.count, dim, f"images of {against.source}"))
        for warning in filter(None, warnings):
            say(f"warning: {warning}")

    def _measured(self, samples: ScoredSamples, reference: SampleSet) -> Iterator[Score]:
        """Yield each score as soon as it is written, because a later one may fail."""
        key = score_key(
            self.extractor,
            n=self.count,
            seed=samples.seed,
            reference=self.reference.fingerprint,
            labels=self._labels_text,
            sampler=samples.sampler,
            nfe=samples.nfe,
            precision=samples.precision,
        )
        for kinds in _computations(self.settings.scores):
            say(f"measuring {', '.join(kinds)}:")  # takes minutes with 2,048 features
            estimates = estimate_all(kinds, samples.as_set, reference, self.extractor)
            scores = [score_from_estimate(kind, estimate, key) for kind, estimate in estimates.items()]
            self.scored.add(scores)
            for score in scores:
                say(f"{score.metric}: {score.value:.4g} ± {score.error:.2g}")
                yield score

    def _sample_sets(self, pool: SamplerPool) -> Iterator[ScoredSamples]:
        """Yield the given images, or the samples of each sampler of the model."""
        if self.images is not None:
            shards, manifest = self.images
            say(f"images of {manifest.source}:")
            with shown("image") as progress:
                results = pool.read(shards, manifest, self.outputs, progress, groups=GROUPS)
            order = torch.from_numpy(manifest.places()).argsort()
            yield ScoredSamples(f"images of {manifest.source}", 0, 0, "", results, order)
        if self.model is not None:
            put = pool.put(self.model.folder, self.model.weak)
            for sampler in self.model.samplers:
                yield self._sampled(pool, put, self.model, sampler)

    def _sampled(
        self, pool: SamplerPool, put: PutModel, model: EvaluatedModel, sampler: Sampler
    ) -> ScoredSamples:
        """Return the samples of one sampler; save a grid of them, and the samples that are to be kept."""
        settings, stem = self.settings, self.run.samples / file_name(sampler)
        cache = ResultCache(pool, put, self.extractor, self.outputs, self.work)
        say(f"{text_of(sampler)}:")
        with shown("image") as progress:
            found = dict(cache.generate_all(self._requests(sampler), progress))
        results = [found[index] for index in sorted(found)]
        samples = ScoredSamples(text_of(sampler), sampler.nfe, settings.seed, settings.precision, results)
        grid = self._request(sampler, 0, settings.grid**2)
        images = pool.generate(put, grid, frozenset(["images"])).images
        assert images is not None
        save_grid(
            images,
            stem.with_name(stem.name + ".png"),
            columns=settings.grid,
            classes=grid.drawn_classes(model.spec),
        )
        if settings.keep != "none":
            images = samples.as_set.images
            assert images is not None
            labels = self._request(sampler, 0, self.count).drawn_labels()
            keep_samples(images, stem, settings.keep, model.spec, labels)
        return samples

    def _requests(self, sampler: Sampler) -> list[Request]:
        """Return up to GROUPS requests that cover all samples."""
        return self._request(sampler, 0, self.count).groups(GROUPS)

    def _request(self, sampler: Sampler, first: int, count: int) -> Request:
        settings = self.settings
        return Request(
            count=count,
            first=first,
            seed=settings.seed,
            sampler=sampler,
            labels=self.labels,
            unit=self.unit,
            precision=settings.precision,
            channels=settings.channels,
        )


def _computations(kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the kinds that are computed together: precision with recall, every other kind alone."""
    both = tuple(kind for kind in kinds if kind in ("precision", "recall"))
    return list(dict.fromkeys(both if kind in both else (kind,) for kind in kinds))


def _needs_of_reference(kinds: Sequence[str]) -> set[Needs]:
    """Return the outputs of the reference images that scores need: statistics for FDinf, none for IS."""
    return {"statistics" if kind == "FDinf" else NEEDS[kind] for kind in kinds if kind != "IS"}
