"""The command that makes shards."""

from __future__ import annotations

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.cluster.runtime.connect import connected
from cm_ray.command_line.settings.shards import Shards
from cm_ray.data.interface.classes import classes_in_words
from cm_ray.data.interface.described import remarks
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import MANIFEST, is_shard_folder
from cm_ray.data.shards.shard_writer import recipe_of
from cm_ray.data.take_survey import survey_of_source
from cm_ray.errors import UserError, plain, setting, spoken
from cm_ray.remote.copies import delivered
from cm_ray.runs.console import say, shown
from cm_ray.storage.files import is_address


def run(args: Shards) -> None:
    """Make the shards and print their number, shape and fingerprint. Raises UserError on bad images."""
    with shown("byte") as fetched:
        source = open_source(args.source, progress=fetched, options=args.read_options)
    say(f"{survey_of_source(source, args.read_options)}")
    with shown("byte") as read:
        recipe = recipe_of(source, args.rows_per_shard, args, read)
    if is_address(args.out) and is_shard_folder(args.out):
        raise UserError(f"{args.out} holds shards already; use them, or choose another {setting('out')}.")
    with shown("task") as progress, connected(), delivered(args.out, last=MANIFEST) as out:
        manifest = make_shards(
            source,
            out,
            args.read_options,
            rows_per_shard=args.rows_per_shard,
            recipe=recipe,
            progress=progress,
        )
    channels, height, width = manifest.shape
    colours, shards = "grey" if channels == 1 else "RGB", len(manifest.shards)
    more = "".join(f"; {remark}" for remark in remarks(manifest))
    classes = classes_in_words(manifest.class_names, manifest.class_counts)
    print(
        f"{plain(spoken(str(args.out)))}: {manifest.count} images of {width}x{height}, {colours}, "
        f"{classes}; {shards} shard{'s' if shards > 1 else ''}{more}; "
        f"fingerprint {manifest.fingerprint[:16]}"
    )
