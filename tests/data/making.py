"""Shards made as the command makes them, in this process."""

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.shards.shard_writer import Layout, agreement, make_part, make_shard, merge, recipe_of
from cm_ray.storage.files import remove


def make(source, out, rows=8192, **options):
    """Make shards without Ray; return the manifest."""
    settings = ReadOptions(**options)
    recipe = recipe_of(source, rows, settings)
    parts = source.parts(rows)
    results = [make_part(part, out, i, recipe, settings) for i, part in enumerate(parts)]
    unlike, agreed = agreement(results, settings)
    for i in unlike:
        results[i] = make_part(parts[i], out, i, recipe, agreed)
    layout = Layout.of(source, out, results, rows)
    shards = [make_shard(out, index, layout) for index in range(len(layout.ranges))]
    manifest = merge(source, recipe, results, layout, shards, settings, ())
    manifest.save(out)
    remove(out / ".parts")
    return manifest
