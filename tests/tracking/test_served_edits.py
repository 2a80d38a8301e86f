"""The registered model edits: image bytes in, image bytes out, also over HTTP."""

import base64
import io
import json
import urllib.error
import urllib.request

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tracked_runs import score, tiny_model

from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.editing.model_edits import edited, interpolation_steps
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import from_uint8, save_model, to_uint8
from cm_ray.page.model_card import model_card
from cm_ray.tracking.registry import save_pyfunc
from cm_ray.tracking.tracker import open_tracker
from tests.planted import NET, forget, plant, planted_model
from tests.waiting import LIMIT_S


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Return two models as MLflow loads them: with classes and without."""
    folder, loaded = tmp_path_factory.mktemp("saved"), {}
    for conditional in (False, True):
        model, name = tiny_model(conditional=conditional), str(conditional)
        save_model(folder / name, model.spec, model.network.state_dict())
        save_pyfunc(folder / name, folder / f"pyfunc-{name}")
        loaded[conditional] = mlflow.pyfunc.load_model(str(folder / f"pyfunc-{name}"))
    return loaded


def pixels(seed, size=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def decoded(table):
    return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in table["image"]])


IMAGES = [pixels(seed) for seed in range(3)]
MASK = np.zeros((8, 8), np.uint8)
MASK[:, :4] = 255


def expected(task, *, conditional=False, indices=(0, 1, 2), seed=0, label=None, **settings):
    model = tiny_model(conditional=conditional)
    result = edited(
        model,
        plan_edit(task, model.spec.diffusion, model.spec.shape, **settings),
        from_uint8(torch.from_numpy(np.stack(IMAGES)))[:, None],
        indices=torch.tensor(indices),
        seed=seed,
        mask=torch.from_numpy(MASK > 0).expand(3, 1, 8, 8) if task == "inpaint" else None,
        labels=None if label is None else torch.full((3,), label),
    )
    return to_uint8(result)[:, 0].numpy()


@pytest.mark.parametrize(
    ("task", "params"),
    [
        ("inpaint", {"steps": 3}),
        ("upscale", {"taus": [80.0, 1.0], "factor": 4}),
        ("stroke", {}),
        ("denoise", {"sigma": 0.5}),
    ],
)
def test_tasks_are_the_models_bit_for_bit(task, params, served):
    table = pd.DataFrame({"image": [png(image) for image in IMAGES]})
    if task == "inpaint":
        table["mask"] = [png(MASK)] * 3
    answer = served[False].predict(table, params={"task": task, "seed": 3} | params)
    settings = params | ({"taus": tuple(params["taus"])} if "taus" in params else {})
    np.testing.assert_array_equal(decoded(answer), expected(task, seed=3, **settings))
    if task == "inpaint":
        assert (decoded(answer)[:, :, :4] == np.stack(IMAGES)[:, :, :4]).all()


def test_indices_and_labels_are_taken(served):
    table = pd.DataFrame({"image": [png(image) for image in IMAGES], "index": [4, 0, 9]})
    answer = served[True].predict(table, params={"task": "stroke", "label": "c"})
    made = expected("stroke", conditional=True, indices=(4, 0, 9), label=2)
    np.testing.assert_array_equal(decoded(answer), made)
    without = served[True].predict(table, params={"task": "stroke"})
    np.testing.assert_array_equal(decoded(without), expected("stroke", conditional=True, indices=(4, 0, 9)))


def test_interpolation_by_rows(served):
    table = pd.DataFrame({"index": [4, 4, 4], "alpha": [0.0, 0.3, 1.0]})
    answer = served[False].predict(table, params={"task": "interpolate", "seed": 3, "to_seed": 8})
    model = tiny_model()
    *_, last = interpolation_steps(
        model,
        sampler_of(model.spec),
        torch.tensor([0.0, 0.3, 1.0]),
        indices=torch.tensor([4, 4, 4]),
        seeds=(3, 8),
    )
    np.testing.assert_array_equal(answer, to_uint8(last.x).permute(0, 2, 3, 1).numpy())
    end = served[False].predict(pd.DataFrame({"index": [4]}), params={"seed": 8})
    assert np.abs(answer[2].astype(int) - end[0]).max() <= 1


@pytest.mark.parametrize("columns", [{"index": [4]}, {"index": [4], "alpha": [0.0]}])
def test_time_points_are_taken(columns, served):
    task = "interpolate" if "alpha" in columns else "sample"
    answer = served[False].predict(pd.DataFrame(columns), params={"task": task, "taus": [2.0]})
    model = tiny_model()
    sampler = sampler_of(model.spec, taus=(2.0,))
    sample = to_uint8(model.sample(torch.tensor([4]), seed=0, sampler=sampler))
    np.testing.assert_array_equal(answer, sample.permute(0, 2, 3, 1).numpy())
    assert (answer != served[False].predict(pd.DataFrame(columns), params={"task": task})).any()


def test_a_way_needs_a_class(served):
    table, params = pd.DataFrame({"index": [4], "alpha": [0.5]}), {"task": "interpolate"}
    assert served[True].predict(table, params=params | {"label": "b"}).shape == (1, 8, 8, 1)
    with pytest.raises(UserError, match="needs a class; give a label"):
        served[True].predict(table, params=params)


IMAGE = {"image": [png(IMAGES[0])]}


@pytest.mark.parametrize(
    ("columns", "params", "sentence"),
    [
        (IMAGE, {"task": "inpant"}, "There is no task 'inpant': did you mean 'inpaint'"),
        (IMAGE, {"task": "inpaint"}, "The column mask is missing"),
        (IMAGE, {}, "The column index is missing"),
        ({"index": [0]}, {"task": "stroke"}, "The column image is missing"),
        ({"index": [0]}, {"task": "interpolate"}, "The column alpha is missing"),
        ({"index": [0], "alpha": [1.5]}, {"task": "interpolate"}, r"alpha must be in \[0, 1\]"),
        ({"image": [b"no image"]}, {"task": "stroke"}, "The image of row 0 is not a readable image"),
        ({"image": [png(pixels(0, (9, 9)))]}, {"task": "stroke"}, "row 0 is 9x9, and the model's images are"),
        (
            IMAGE | {"mask": [png(pixels(0, (9, 9)))]},
            {"task": "inpaint"},
            "mask of row 0 is 9x9 and its image",
        ),
        (IMAGE, {"task": "colorize"}, "this one makes grey ones"),
        (IMAGE, {"task": "upscale", "factor": 3}, "A factor of 3 does not divide"),
        (IMAGE, {"task": "stroke", "taus": [81.0]}, "at most 80, not 81"),
        (IMAGE, {"task": "stroke", "label": "a"}, "trained without classes; leave label out"),
        (IMAGE, {"task": "denoise"}, "give its sigma, as 0.5"),
        ({"index": [0]}, {"factor": 2}, "factor does not apply to sample"),
        ({"index": [0], "alpha": [0.5]}, {"task": "interpolate", "sigma": 2.0}, "sigma does not apply to"),
        ({"index": [0]}, {"resize": True}, "resize does not apply to sample"),
        ({"index": [0]}, {"taus": [81.0]}, "Time points must descend between 80"),
        (IMAGE | {"index": [-1]}, {"task": "stroke"}, "index must be in"),
    ],
)
def test_bad_requests(columns, params, sentence, served):
    with pytest.raises(UserError, match=sentence):
        served[False].predict(pd.DataFrame(columns), params=params)


def test_other_sizes_are_fitted_if_asked(served):
    table = pd.DataFrame({"image": [png(np.kron(IMAGES[0], np.ones((3, 3), np.uint8)))]})
    answer = served[False].predict(table, params={"task": "upscale", "resize": True, "steps": 1})
    assert decoded(answer).shape == (1, 8, 8)


def test_an_edit_over_http(served_champion):
    _, address = served_champion

    def ask(params, **columns):
        rows = list(zip(*columns.values(), strict=True))
        body = {"dataframe_split": {"columns": [*columns], "data": rows}, "params": params}
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return json.load(response)["predictions"]

    def text(data):
        return base64.b64encode(data).decode()

    images, masks = [text(png(image)) for image in IMAGES], [text(png(MASK))] * 3
    answer = ask({"task": "inpaint", "steps": 3, "seed": 3}, image=images, mask=masks)
    made = decoded({"image": [base64.b64decode(row["image"]) for row in answer]})
    np.testing.assert_array_equal(made, expected("inpaint", steps=3, seed=3))
    assert np.array(ask({}, index=[0, 1])).shape == (2, 8, 8, 1)
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask({"task": "stroke"}, image=[text(b"no image")])
    assert refused.value.code == 400
    said = json.load(refused.value)
    assert "The image of row 0 is not a readable image" in said["message"]
    assert "stack_trace" not in said


def test_the_page_tells_the_score_of_a_registered_version(make_run, tmp_path):
    run, uri = make_run(rows=1), f"sqlite:///{tmp_path}/runs/mlflow.db"
    open_tracker(run.config(), run, strict=True).register(score(5.0, sampler="multistep@0.8", nfe=2))
    told = model_card(tiny_model(), "models:/tiny@champion", run.model, uri).text
    assert "| FD-digits-1797 | `multistep@0.8` | 5 |" in told
    assert "no classes" in told
    other = make_run("other", rows=1, model_name="unscored")
    open_tracker(other.config(), other, strict=True).register(None)
    assert "FD-" not in model_card(tiny_model(), "models:/unscored/1", other.model, uri).text


def test_a_served_network_of_ones_own_is_named_by_who_serves_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    trace = plant(tmp_path / "code")
    forget(trace)
    model = planted_model(tmp_path / "model")
    save_pyfunc(model, tmp_path / "logged")
    assert not trace.exists(), "whoever registers a model need not have its code"
    with pytest.raises(UserError, match=f"model.json names code .*, {NET},.*CM_RAY_OWN_CODE"):
        mlflow.pyfunc.load_model(str(tmp_path / "logged"))
    with pytest.raises(UserError, match="names code"):
        mlflow.pyfunc.load_model(str(tmp_path / "logged"), model_config={"own_code": NET})
    assert not trace.exists()
    monkeypatch.setenv("CM_RAY_OWN_CODE", f"other.module:f {NET}")
    served = mlflow.pyfunc.load_model(str(tmp_path / "logged"))
    assert served.predict(pd.DataFrame({"index": [0]})).shape == (1, 8, 8, 1)
    forget(trace)
