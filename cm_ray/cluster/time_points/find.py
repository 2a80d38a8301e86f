"""Find the time points of multistep sampling and write them into the model.  Song et al. 2023, section 6.

`point_search` runs the search itself; this file owns the run directory, the MLflow run and the update of the
model.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_ray.cluster.pool.reference import ScoringSetup, name_of, run_of, scoring_setup, tracking_uris
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.time_points.point_plan import SearchPlan, read_search
from cm_ray.cluster.time_points.point_search import Search
from cm_ray.command_line.settings.time_points import TimePointSearch
from cm_ray.data.shards.manifest import Manifest
from cm_ray.errors import UserError, setting
from cm_ray.metrics.score import ROW
from cm_ray.networks.formats.reading import network_digest, read_model
from cm_ray.networks.model import SPEC, WEIGHTS, build_model, save_model, spec_to_dict
from cm_ray.recipes.sections import EXPERIMENT
from cm_ray.runs.console import command, say
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.runs.places import run_place
from cm_ray.storage.files import folder_written_aside, is_address, read_json, write_json
from cm_ray.storage.shapes import ANYTHING
from cm_ray.tracking import RunGroup
from cm_ray.tracking.locate import locate_model
from cm_ray.tracking.publish_time_points import publish_time_points
from cm_ray.tracking.registry import model_digest
from cm_ray.tracking.sent_state import SentState


def find_time_points(settings: TimePointSearch) -> RunDirectory:
    """Search for time points, score them, write them into the model and return the run directory.

    The directory holds result.json, time_points.md, .csv (all scores) and .png, and sample grids. The same
    call resumes an interrupted one and repeats no finished evaluation. Raises UserError on bad input.
    """
    tracking_uri, registry = tracking_uris(settings)
    if settings.update and is_address(settings.model):
        raise UserError(
            f"{settings.model} is an address, where no model is changed; set {setting('update')} to False."
        )
    folder = locate_model(settings.model, registry)
    run_config = run_of(folder)
    setup = scoring_setup(settings, run_config)
    run = RunDirectory(run_place(settings.run_dir, f"time_points-{name_of(settings.model)}"))
    plan = SearchPlan.of(settings, folder, run_config, setup)
    with run.locked():
        identity = _identity(plan, folder, setup)
        _check_same(run, identity)
        folder = _own_copy(folder, run)
        with connected():
            search = Search(plan, setup, folder, run)
            before = _claim(run, identity, search.manifest, folder)
            group = RunGroup(run.root, name=run.root.name, uri=tracking_uri, experiment=EXPERIMENT)
            with group.closed():
                if not run.result_file.is_file():
                    search.conclude()
                _log(group, plan, run)
                if settings.update:
                    _update(settings, folder, run, before, group.run_id)
    return run


def _identity(plan: SearchPlan, folder: Path, setup: ScoringSetup) -> dict[str, Any]:
    """Return the values, as JSON, by which two searches are the same one."""
    extractor = setup.extractor
    identity = plan.to_dict() | {
        "network": network_digest(folder),
        "extractor": [extractor.name, extractor.weights_sha256, extractor.preprocess],
        "data": [setup.data.path, setup.data.size],
    }
    return json.loads(json.dumps(identity))


def _check_same(run: RunDirectory, identity: Mapping[str, Any]) -> None:
    """Raise UserError when the directory holds another search (the settings are named) or another job."""
    run.check_owner(run.search_file)
    found = read_search(run) if run.search_file.is_file() else identity
    if others := [name for name in identity if found.get(name) != identity[name]]:
        raise UserError(
            f"{run.root} holds a search with other settings ({', '.join(others)}); repeat its settings to "
            f"resume it, or choose {ANOTHER_DIRECTORY}."
        )


def _own_copy(source: Path, run: RunDirectory) -> Path:
    """Return a model's folder that time points can be written into.

    A file of weights or a directory of diffusers is converted and saved in the run directory.
    """
    if (source / SPEC).is_file():
        return source
    if not (run.model / SPEC).is_file():
        spec, weights = read_model(source)
        save_model(run.model, spec, build_model(spec, weights, source).network.state_dict())
    return run.model


def _claim(run: RunDirectory, identity: Mapping[str, Any], manifest: Manifest, folder: Path) -> str:
    """Record this search in its run directory; return the digest of the model at the start of the search.

    Raises UserError when the directory holds a search with other images. Call it after all other checks, so
    that refused settings leave no search behind.
    """
    if not run.search_file.is_file():
        first = {"reference": manifest.fingerprint, "model": model_digest(folder)}
        write_json(run.search_file, {**identity, **first})
    found = read_search(run)
    if found["reference"] != manifest.fingerprint:
        raise UserError(
            f"{manifest.source} has other images than at the start of the search in {run.root}; choose "
            f"{ANOTHER_DIRECTORY}."
        )
    before: str = found["model"]
    return before


def _log(group: RunGroup, plan: SearchPlan, run: RunDirectory) -> None:
    """Log the settings, the scores and the files of the search to MLflow."""
    result = _found(run)
    metrics = {f"samples/{name}": value for name, value in result["samples"].items()}
    for chosen in result["chosen"]:
        metrics[f"{chosen['score']['name']}/{chosen['nfe']}-evaluations"] = chosen["score"]["value"]
    files = [run.result_file, *sorted(run.root.glob("time_points.*")), *sorted(run.samples.glob("*.png"))]
    group.log(params={"model": plan.settings.model} | plan.to_dict(), metrics=metrics, files=files)


def _found(run: RunDirectory) -> dict[str, Any]:
    """Return the results of a search. Raises UserError when its file is damaged."""
    chosen = {"nfe": int, "score": ROW, "kept": [float], str: ANYTHING}
    shape = {"samples": {str: (float, None)}, "chosen": [chosen], str: ANYTHING}
    found: dict[str, Any] = read_json(run.result_file, shape)
    return found


def _update(settings: TimePointSearch, folder: Path, run: RunDirectory, before: str, mlflow_run: str) -> None:
    """Write the time points into the model; register a new version if the model is registered."""
    spec, _ = read_model(folder)
    points = {len(taus): taus for taus in spec.time_points}
    kept = [tuple(one["kept"]) for one in _found(run)["chosen"]]
    points |= {len(taus): taus for taus in kept if taus}
    spec = dataclasses.replace(spec, time_points=tuple(points[count] for count in sorted(points)))
    tracking_uri, registry = tracking_uris(settings)
    if settings.model.startswith("models:"):
        with folder_written_aside(run.model) as aside:
            shutil.copy(folder / WEIGHTS, aside / WEIGHTS)
            write_json(aside / SPEC, spec_to_dict(spec))
        source, where = settings.model, {"tracking_uri": registry}
        folder = run.model
    else:
        write_json(folder / SPEC, spec_to_dict(spec))
        named = run.root if folder == run.model else settings.model
        sample = command("cm-ray", "sample", named, "--nfe", 2)
        say(f"{folder / SPEC} has the time points; to use them: {sample}")
        if (sent := registered_as(folder)) is None:
            return
        source = sent.version["name"]
        where = {"before": before, "run_id": sent.run_id, "tracking_uri": sent.uri}
    if tracking_uri == "none":
        say(
            f"{setting('tracking_uri')} is none: the registered model {source} was not changed; {folder} "
            "has the time points."
        )
        return
    registered = publish_time_points(folder, source, tags={"time_points.run": mlflow_run}, **where)
    say(f"{registered.uri}: {registered.reason}")


def registered_as(model: Path) -> SentState | None:
    """Return the MLflow state of the run that a model's folder belongs to; None if it is not registered."""
    file = RunDirectory(model.parent).tracking_file
    sent = SentState.load(file)
    return sent if sent and sent.version else None
