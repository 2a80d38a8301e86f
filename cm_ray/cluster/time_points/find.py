"""The search for the time points of multistep sampling.  Song et al. 2023, section 6.

Settings and plan are here, with what is done about what was found; `point_search` does the searching.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_ray.cluster.pool.reference import Yardstick, name_of, run_of, tracking_uris, yardstick
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.time_points.point_plan import Plan
from cm_ray.cluster.time_points.point_search import Search
from cm_ray.command_line.settings.time_points import TimePointSearch
from cm_ray.data.shards import Manifest
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import network_digest, read_model
from cm_ray.networks.model import SPEC, WEIGHTS, build_model, save_model, spec_to_dict
from cm_ray.recipes.sections import EXPERIMENT
from cm_ray.runs.console import say
from cm_ray.runs.directory import RunDirectory, run_place
from cm_ray.storage.files import folder_written_aside, read_json, write_json
from cm_ray.tracking import RunGroup
from cm_ray.tracking.locate import locate_model
from cm_ray.tracking.publish_time_points import publish_time_points
from cm_ray.tracking.registry import model_digest
from cm_ray.tracking.sent_state import SentState


def find_time_points(settings: TimePointSearch) -> RunDirectory:
    """Search, score what was found, write it into the model and return the directory with everything.

    In it: result.json; time_points.md, .csv (every evaluation) and .png; sample grids. The same call goes on
    after a kill and repeats no finished evaluation. Raises UserError on bad input.
    """
    told_at, registry = tracking_uris(settings)
    folder = locate_model(settings.model, registry)
    run_config = run_of(folder)
    measure = yardstick(settings, run_config)
    run = RunDirectory(run_place(settings.run_dir, f"time_points-{name_of(settings.model)}"))
    plan = Plan.of(settings, folder, run_config, measure)
    with run.locked():
        wanted = _wanted(plan, folder, measure)
        _check_same(run, wanted)
        folder = _own(folder, run)
        with connected():
            search = Search(plan, measure, folder, run)
            before = _claim(run, wanted, search.manifest, folder)
            group = RunGroup(run.root, name=run.root.name, uri=told_at, experiment=EXPERIMENT)
            try:
                if not run.result_file.is_file():
                    search.conclude()
                _tell(group, plan, run)
                if settings.update:
                    _update(settings, folder, run, before, group.run_id)
            except BaseException:
                group.finish("FAILED")
                raise
            group.finish("FINISHED")
    return run


def _wanted(plan: Plan, folder: Path, measure: Yardstick) -> dict[str, Any]:
    """Return, as JSON values, what makes two searches the same."""
    extractor = measure.extractor
    wanted = plan.to_dict() | {
        "network": network_digest(folder),
        "extractor": [extractor.name, extractor.weights_sha256, extractor.preprocess],
        "data": [measure.data.path, measure.data.size],
    }
    return json.loads(json.dumps(wanted))


def _check_same(run: RunDirectory, wanted: Mapping[str, Any]) -> None:
    """Raise UserError, naming what differs, when the directory holds another search, or is another job's."""
    run.check_owner(run.search_file)
    found = read_json(run.search_file) if run.search_file.is_file() else wanted
    if others := [name for name in wanted if found.get(name) != wanted[name]]:
        raise UserError(
            f"{run.root} holds a search with other settings ({', '.join(others)}); repeat its settings to go "
            "on with it, or choose another --run-dir."
        )


def _own(place: Path, run: RunDirectory) -> Path:
    """Return a model's folder: a copy in the run directory of one that is a file or diffusers'."""
    if (place / SPEC).is_file():
        return place
    if not (run.model / SPEC).is_file():
        spec, weights = read_model(place)
        save_model(run.model, spec, build_model(spec, weights, place).network.state_dict())
    return run.model


def _claim(run: RunDirectory, wanted: Mapping[str, Any], manifest: Manifest, folder: Path) -> str:
    """Give the directory to this search; return the digest that the model had when it began.

    Not before all is known to fit. Raises UserError when the search that it holds was of other images.
    """
    if not run.search_file.is_file():
        first = {"reference": manifest.fingerprint, "model": model_digest(folder)}
        write_json(run.search_file, {**wanted, **first})
    found = read_json(run.search_file)
    if found["reference"] != manifest.fingerprint:
        raise UserError(
            f"{manifest.source} has other images than when the search in {run.root} began; choose another "
            "--run-dir."
        )
    before: str = found["model"]
    return before


def _tell(group: RunGroup, plan: Plan, run: RunDirectory) -> None:
    """Log all of it to MLflow."""
    result = read_json(run.result_file)
    metrics = {f"samples/{name}": value for name, value in result["samples"].items()}
    for chosen in result["chosen"]:
        metrics[f"{chosen['score']['name']}/{chosen['nfe']}-evaluations"] = chosen["score"]["value"]
    files = [run.result_file, *sorted(run.root.glob("time_points.*")), *sorted(run.samples.glob("*.png"))]
    group.log(params={"model": plan.settings.model} | plan.to_dict(), metrics=metrics, files=files)


def _update(settings: TimePointSearch, folder: Path, run: RunDirectory, before: str, mlflow_run: str) -> None:
    """Write the time points into the model, and register it again where it was registered."""
    spec, _ = read_model(folder)
    points = {len(taus): taus for taus in spec.time_points}
    kept = [tuple(one["kept"]) for one in read_json(run.result_file)["chosen"]]
    points |= {len(taus): taus for taus in kept if taus}
    spec = dataclasses.replace(spec, time_points=tuple(points[count] for count in sorted(points)))
    told_at, registry = tracking_uris(settings)
    if settings.model.startswith("models:"):
        with folder_written_aside(run.model) as aside:
            shutil.copy(folder / WEIGHTS, aside / WEIGHTS)
            write_json(aside / SPEC, spec_to_dict(spec))
        source, where = settings.model, {"tracking_uri": registry}
        folder = run.model
    else:
        write_json(folder / SPEC, spec_to_dict(spec))
        named = run.root if folder == run.model else settings.model
        say(f"{folder / SPEC} has the time points: cm-ray sample {named} --nfe 2")
        if (told := registered_as(folder)) is None:
            return
        source = told.version["name"]
        where = {"before": before, "run_id": told.run_id, "tracking_uri": told.uri}
    if told_at == "none":
        say(f"--tracking-uri none: the registered model {source} was left alone; {folder} has the points.")
        return
    registered = publish_time_points(folder, source, tags={"time_points.run": mlflow_run}, **where)
    say(f"{registered.uri}: {registered.reason}")


def registered_as(model: Path) -> SentState | None:
    """Return what MLflow was told of the run that a model's folder lies in; None if it was not registered."""
    file = RunDirectory(model.parent).tracking_file
    told = SentState(**read_json(file)) if file.is_file() else None
    return told if told and told.version else None
