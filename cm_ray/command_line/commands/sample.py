"""The command that draws images from a model."""

from __future__ import annotations

from pathlib import Path

from cm_ray.command_line.settings.sample import Sample
from cm_ray.drawing.autoguidance import guide, guide_by_classifier
from cm_ray.drawing.batches import batch_on
from cm_ray.drawing.model_labels import draw_in_words, label_draw
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import save_samples
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.errors import plain, setting, spoken
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.noise_classifier import load_classifier
from cm_ray.remote.copies import delivered
from cm_ray.runs.console import say
from cm_ray.sampling.samplers import Sampler
from cm_ray.time_points.openai_indices import read_ts, taus
from cm_ray.tracking.locate import locate_model


def run(args: Sample) -> None:
    """Draw the images and print the files. Raises UserError when there is no such model."""
    model = load_model(locate_model(args.model, args.tracking_uri), args.device)
    warn_of_initial_weights(model.spec, args.model)
    classifier = _guiding(args, model)
    sampler = _sampler(args, model, classifier)
    spec = model.asked_by(sampler)
    labels = label_draw(spec, args.label, untrained=args.untrained)
    if labels is not None:
        say(draw_in_words(spec, labels))
    request = Request(
        count=args.samples,
        seed=args.seed,
        sampler=sampler,
        labels=labels,
        unit=_batch(args, model),
        precision=args.precision,
    )
    images, drawn = sample_all(model, request)
    with delivered(args.out) as out:
        paths = save_samples(images, out, labels=drawn, class_names=spec.class_names)
    for path in paths:
        print(plain(spoken(f"{path}")))


def _batch(args: Sample, model: Model) -> int:
    device = next(model.parameters()).device
    batch = batch_on(device, args.batch_size, model.spec, args.precision)
    if not args.batch_size and batch < args.samples:
        say(f"{batch} images at a time ({setting('batch_size')})")
    return batch


def _guiding(args: Sample, model: Model) -> str:
    """Put the classifier beside the model; return its digest, "" without one."""
    if not args.classifier:
        return ""
    return guide_by_classifier(model, load_classifier(Path(args.classifier).expanduser()), args.classifier)


def _sampler(args: Sample, model: Model, classifier: str) -> Sampler:
    given = args.taus or _points_of_ts(args, model.spec)
    weak = ""
    if args.weak:
        weak = guide(model, load_model(locate_model(args.weak, args.tracking_uri), args.device), args.weak)
    guided = {"guidance": args.guidance, "class_scale": args.class_scale}
    return sampler_of(model.spec, args.sampler, args.nfe, given, weak=weak, classifier=classifier, **guided)


def _points_of_ts(args: Sample, spec: ModelSpec) -> tuple[float, ...]:
    if not args.ts:
        return ()
    ends = {"t_min": spec.diffusion.t_min, "t_max": spec.diffusion.t_max, "rho": spec.diffusion.rho}
    return taus(read_ts(args.ts, args.boundaries), args.boundaries, **ends)
