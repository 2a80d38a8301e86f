"""The command that writes a model for other tools."""

from __future__ import annotations

from pathlib import Path

from cm_ray.command_line.settings.export import Export
from cm_ray.errors import plain, spoken
from cm_ray.evaluation.card import card_files
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.export import export_model, free_path
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import SPEC
from cm_ray.remote.copies import check_free, delivered
from cm_ray.tracking.locate import locate_model
from cm_ray.tracking.named_card import named_card


def run(args: Export) -> None:
    """Write the model and print the files, and how a pipeline is called."""
    with delivered(args.out, last=SPEC) as place:
        out = free_path(args.format, place)  # before the model is read
        check_free(args.out.with_name(out.name))
        calls = _written(args, out)
    print(plain(spoken(f"{out}")))
    for steps in calls:
        print(f"pipeline(num_inference_steps=None, timesteps={list(steps)})  # {len(steps)} evaluations")


def _written(args: Export, out: Path) -> list[tuple[int, ...]]:
    """Write the model; return the steps by which a pipeline of diffusers is called."""
    source = locate_model(args.model, args.tracking_uri)
    model = load_model(source)
    also = card_files(named_card(model, args.model, source, args.tracking_uri), args.format)
    warn_of_initial_weights(model.spec, args.model)
    if args.format != "diffusers":
        export_model(model, args.format, out, also=also)
        return []
    weights = model.network.state_dict()
    return list(write_pipeline(out, model.spec, weights, args.boundaries, also).values())
