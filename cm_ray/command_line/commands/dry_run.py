"""Commands after --dry-run: they say what they understood of the images that they would read.

Neither Ray is started nor a run directory or shards are made; a registered model is fetched into the cache.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cm_ray.cluster.editing.edit_plan import find_images
from cm_ray.cluster.evaluation.evaluate_plan import check_evaluation, scored_data
from cm_ray.cluster.paper_table import recipes_of
from cm_ray.cluster.pool.reference import reference_data, run_of, tracking_uris
from cm_ray.command_line.commands.paper_table import table_of
from cm_ray.command_line.commands.sweep import changes_of
from cm_ray.command_line.options import DRY_RUN
from cm_ray.command_line.settings.averages import AverageLengths
from cm_ray.command_line.settings.edit import Editing
from cm_ray.command_line.settings.likelihood import LikelihoodSettings
from cm_ray.command_line.settings.paper_table import PaperTable
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.command_line.settings.shards import Shards
from cm_ray.command_line.settings.time_points import TimePointSearch
from cm_ray.data.interface.classes import names_in_words
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.take_survey import take_survey
from cm_ray.errors import UserError, setting
from cm_ray.evaluation.statistics_file import StatisticsFile, is_statistics_file
from cm_ray.recipes.sections import DataSettings
from cm_ray.runs.places import finished_run
from cm_ray.sweeps.options import Sweep
from cm_ray.sweeps.space_files import load_space
from cm_ray.tracking.locate import find_model, locate_model


def of_shards(args: Shards) -> None:
    """Say what is understood of the images that shards would be made of."""
    print(take_survey(args.source, args.read_options))


def of_scores(settings: Evaluation) -> None:
    """Say what is understood of the images that are scored, if they are, and of those to compare with."""
    model = find_model(settings.source, tracking_uris(settings)[1])
    check_evaluation(settings, is_model=model is not None)
    if model is None:
        _say(scored_data(settings))
    _say(reference_data(settings, run_of(model) if model else None))


def of_time_points(settings: TimePointSearch) -> None:
    """Say what is understood of the images that samples are compared with."""
    model = locate_model(settings.model, tracking_uris(settings)[1])
    _say(reference_data(settings, run_of(model)))


def of_likelihood(settings: LikelihoodSettings) -> None:
    """Say what is understood of the images whose likelihood would be computed."""
    _say(reference_data(settings, run_of(locate_model(settings.model, tracking_uris(settings)[1]))))


def of_averages(settings: AverageLengths) -> None:
    """Say what is understood of the images that samples are compared with."""
    run = finished_run(settings.run).config()
    data = DataSettings(path=settings.data) if settings.data else run.data
    _say(data.updated(ReadOptions(size=settings.size)))


def of_sweep(settings: Sweep) -> None:
    """Say what is understood of the training data of all trials."""
    _say(load_space(settings.space, changes_of(settings)).base.data)


def of_paper_table(args: PaperTable) -> None:
    """Say what is understood of the training data of all methods."""
    _say(next(iter(recipes_of(table_of(args)).values())).data)


def of_edits(settings: Editing) -> None:
    """Say which images would be edited: their number, and that of each sub-folder."""
    if not settings.image:
        raise UserError(f"{settings.task} reads no images; leave {DRY_RUN} out.")
    files, root = find_images(settings.image), Path(settings.image).expanduser().absolute()
    print(f"{root}: {len(files):,} {'images' if len(files) > 1 else 'image'}")
    below = [file.relative_to(root).parts[0] for file in files if file.parent not in (root, root.parent)]
    if below:
        counts = [f"{name} ({count:,})" for name, count in sorted(Counter(below).items())]
        print(f"  in sub-folders: {names_in_words(counts)}")


def _say(data: DataSettings) -> None:
    if not data.path:
        raise UserError(
            f"{setting('data.path', 'data')} is empty; set it to a folder or to the name of a data set."
        )
    if is_statistics_file(data.path):
        print(StatisticsFile(Path(data.path).expanduser()))
    else:
        print(take_survey(data.path, data.read_options))
