"""The command that writes a model for other tools."""

from __future__ import annotations

from cm_ray.command_line.settings.export import Export
from cm_ray.evaluation.card import card_files
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.export import export_model, free_path
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.storage.files import local_path
from cm_ray.tracking.locate import locate_model
from cm_ray.tracking.named_card import named_card


def run(args: Export) -> None:
    """Write the model and print the files, and how a pipeline is called."""
    local_path(args.out)
    out = free_path(args.format, args.out)  # before the model is read
    place = locate_model(args.model, args.tracking_uri)
    model = load_model(place)
    also = card_files(named_card(model, args.model, place, args.tracking_uri), args.format)
    warn_of_initial_weights(model.spec, args.model)
    if args.format == "diffusers":
        timesteps = write_pipeline(out, model.spec, model.network.state_dict(), args.boundaries, also)
        print(out)
        for steps in timesteps.values():
            print(f"pipeline(num_inference_steps=None, timesteps={list(steps)})  # {len(steps)} evaluations")
        return
    print(export_model(model, args.format, out, also=also))
