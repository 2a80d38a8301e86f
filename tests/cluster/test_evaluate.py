"""Scores of models and of anyone's images: right, resumable, with their keys; bad input is one sentence."""

import contextlib
import dataclasses
import json
import re
import runpy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray import recipes
from cm_ray.cluster.evaluation import evaluate as module
from cm_ray.cluster.evaluation.evaluate import evaluate
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import name_of, run_of, scoring_setup
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.pool.supervisor import Supervisor
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.core.diffusion import Diffusion
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.shards.manifest import Manifest, load_all
from cm_ray.data.tables.npz import NpzSource
from cm_ray.drawing.model_labels import scored_labels
from cm_ray.errors import UserError
from cm_ray.evaluation.reference import Shards
from cm_ray.metrics.extractors.digits_classifier import load_digits_images
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import GROUPS
from cm_ray.metrics.score import KINDS, Score
from cm_ray.networks.formats.reading import load_model
from cm_ray.own_code import allow, forgotten_afterwards
from cm_ray.recipes.measuring import ActorSettings, MeasuringSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import Heun
from cm_ray.sampling.text import file_name, parse, text_of
from cm_ray.settings.tree import override
from cm_ray.storage.files import read_json, write_json
from cm_ray.training.batch import Share
from cm_ray.training.communication import SingleWorker
from cm_ray.training.evaluator import Evaluator
from tests.cluster.tiny import NETWORK, digits_shards, make_tiny_run, save_tiny

ROOT = Path(__file__).parents[2]
EVERYTHING = tuple(KINDS)
COUNT = 660  # FDinf needs more than ten for each of the 64 features


class Killed(BaseException):
    pass


class Plain:
    """An extractor that does not classify."""

    name, dim, weights_sha256, preprocess = "plain", 64, "ab" * 32, "none"

    def __init__(self, device):
        """Take the device that a factory is called with."""

    def features(self, images):
        """Return the pixels."""
        return images.flatten(1).float()


def settings(source, run_dir, **changes):
    defaults = {
        "data": "digits",
        "extractor": "digits",
        "tracking_uri": "none",
        "actors": ActorSettings(count=1, cpus_each=0.5),
        "grid": 2,
        "run_dir": str(run_dir),
    }
    return Evaluation(source=str(source), **(defaults | changes))


def drawn_labels(tiny):
    """The labels of the samples: as often as each digit is in the data."""
    spec = load_model(tiny / "model").spec
    draw = scored_labels(spec, Manifest.load(digits_shards()), "data")
    assert draw.weights == Manifest.load(digits_shards()).class_counts
    return draw.labels(torch.arange(COUNT), 1)


def by_metric(scores):
    return {score.metric: score for score in scores}


def save_npz(path, images):
    """Write images (n, c, h, w) as people do."""
    np.savez(path, np.asarray(images).transpose(0, 2, 3, 1))
    return path


def noise(count, *, size=8, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The run directory of a class-conditional model that knows a time point."""
    network = dataclasses.replace(NETWORK, conditional=True)
    return make_tiny_run(
        tmp_path_factory.mktemp("models") / "tiny", network=network, time_points=((2.0,),)
    ).root


@pytest.fixture(scope="module")
def scored(ray_cluster, tiny, tmp_path_factory):
    """Every score of the model, without interruption, on two actors of its own; the samples are kept."""
    actors = ActorSettings(count=2, cpus_each=0.5)
    root = tmp_path_factory.mktemp("runs") / "scored"
    run, scores = evaluate(settings(tiny, root, samples=COUNT, scores=EVERYTHING, keep="npz", actors=actors))
    return run, scores


@pytest.fixture(scope="module")
def pool(ray_cluster):
    with SamplerPool(partial(open_extractor, "digits"), Actors(count=1, cpus=0.5)) as warm:
        yield warm


@pytest.fixture
def warm(pool, monkeypatch):
    """Let evaluations take actors that are there already: starting them takes seconds."""
    monkeypatch.setattr(module, "SamplerPool", lambda opener, actors: contextlib.nullcontext(pool))
    return pool


@pytest.fixture
def requests(monkeypatch):
    """The requests that are put to actors, but for grids; more of them than `requests.most` are a kill."""

    class Requests(list):
        most = 10**9

    made, generate_all = Requests(), SamplerPool.generate_all

    def watched(self, model, requests, wanted, progress=None):
        grid = len(requests) == 1 and wanted == frozenset(["images"])
        for place, result in generate_all(self, model, requests, wanted, progress):
            if not grid and len(made) >= made.most:
                raise Killed
            made.extend([] if grid else [(text_of(requests[place].sampler), requests[place].first)])
            yield place, result

    monkeypatch.setattr(SamplerPool, "generate_all", watched)
    return made


@pytest.mark.ray
class TestScores:
    """The numbers are those of the samples."""

    def test_every_score_has_its_row(self, scored):
        run, scores = scored
        rows = read_json(run.root / "scores.json")
        assert [Score.from_row(row) for row in rows] == scores
        assert [(row["kind"], row["key"]["sampler"]) for row in rows] == [
            (kind, sampler) for sampler in ("one-step", "multistep@2.0") for kind in EVERYTHING
        ]
        for row in rows:
            assert row["name"] == f"{row['kind']}-digits-{COUNT}", "never FID by another extractor"
            assert row["error"] >= 0
            assert row["key"]["n"] == COUNT
            assert row["key"]["seed"] == 1
            assert row["key"]["labels"] == "data"
            assert row["key"]["reference"] == Manifest.load(digits_shards()).fingerprint
            assert row["key"]["weights_sha256"] == open_extractor("digits").weights_sha256
            assert row["key"]["nfe"] == (1 if row["key"]["sampler"] == "one-step" else 2)
        table = (run.root / "scores.md").read_text().splitlines()
        assert len(table) == 2 + len(rows)
        assert {line.count("|") for line in table} == {10}
        assert all(line.endswith(f" | {open_extractor('digits').preprocess} |") for line in table[2:])
        assert f"| FD-digits-{COUNT} | `one-step` | data | {scores[0].value:.4g} |" in table[2]
        assert not any("FID" in line for line in table)
        grid = Image.open(run.samples / "one-step.png")
        assert grid.size[0] >= 400
        assert sorted(path.name for path in run.samples.iterdir()) == [
            *("multistep-2.0.classes.txt", "multistep-2.0.npz", "multistep-2.0.png"),
            *("one-step.classes.txt", "one-step.npz", "one-step.png"),
        ]
        assert not (run.root / "evaluation-work").exists()

    def test_a_model_scores_what_its_training_says(self, scored, tiny, tmp_path):
        config = override(
            run_of(tiny / "model"), {"seed": 1, "evaluation.samples": COUNT, "evaluation.grid": 2}
        )
        alone = (torch.device("cpu"), Share(0, 1), SingleWorker())
        evaluator = Evaluator(config, Shards.open(digits_shards()), *alone)
        (one_step, *_) = evaluator.evaluate(load_model(tiny / "model"), 0, tmp_path)
        ours = by_metric(scored[1])[one_step.metric]
        assert ours.key == one_step.key
        assert ours.value == pytest.approx(one_step.value, rel=1e-9)

    def test_kept_samples_are_images_with_the_same_scores(self, scored, warm, tmp_path):
        run, scores = scored
        _, others = evaluate(settings(run.samples / "one-step.npz", tmp_path / "images", scores=EVERYTHING))
        ours = by_metric(scores)
        for score in others:
            assert score.key["sampler"] == "images of one-step"
            assert (score.key["seed"], score.key["nfe"]) == (0, 0)
            same = ours[f"{score.name}/one-step"]
            assert score.value == pytest.approx(same.value, rel=1e-9, abs=1e-12), score.name
        errors = [ours[f"FD-digits-{COUNT}/one-step"].error, others[0].error]
        assert errors[0] == pytest.approx(errors[1], rel=1e-6)

    def test_kept_arrays_are_those_of_the_model(self, scored, tiny):
        source = NpzSource.open([scored[0].samples / "multistep-2.0.npz"], "kept")
        (part,) = source.parts(10**6)
        batch = next(part.read(ReadOptions()))
        assert batch.images.shape == (COUNT, 8, 8, 1)
        np.testing.assert_array_equal(batch.labels, drawn_labels(tiny))
        again = scored[1][len(EVERYTHING)]
        assert again.key["sampler"] == "multistep@2.0"

    def test_a_second_call_adds_to_the_first(self, scored, warm, tiny, tmp_path, requests):
        root = tmp_path / "run"
        first = evaluate(settings(tiny, root, samples=COUNT, samplers=("one-step",)))[1]
        call = settings(
            tiny,
            root,
            samples=COUNT,
            samplers=("multistep:2", "multistep@2.0"),
            scores=("FD", "KID"),
            keep="shards",
        )
        run, second = evaluate(call)
        assert [score.metric.split("-")[0] for score in second] == ["FD", "KID"], "the two are one sampler"
        assert [Score.from_row(row) for row in read_json(root / "scores.json")] == [*first, *second]
        (of_statistics,) = first
        of_features = by_metric(scored[1])[of_statistics.metric]
        assert of_statistics.key == of_features.key
        assert of_statistics.value == pytest.approx(of_features.value, rel=1e-9), "summed in another order"
        assert of_statistics.error == pytest.approx(of_features.error, rel=0.5), f"told by {GROUPS} groups"
        assert {score.metric: score.value for score in second}.items() <= {
            score.metric: score.value for score in scored[1]
        }.items()
        assert len(requests) == 2 * GROUPS
        evaluate(call)
        rows = read_json(root / "scores.json")
        assert [Score.from_row(row) for row in rows] == [*first, *second], "in the place of the same ones"

        kept = run.samples / "multistep-2.0"
        manifest = Manifest.load(kept)
        images, labels = load_all(kept)
        assert (manifest.count, manifest.shape, manifest.class_names) == (
            COUNT,
            (1, 8, 8),
            tuple("0123456789"),
        )
        np.testing.assert_array_equal(labels, drawn_labels(tiny))
        assert manifest.class_counts == tuple(np.bincount(labels, minlength=10).tolist())
        with np.load(scored[0].samples / "multistep-2.0.npz") as arrays:
            np.testing.assert_array_equal(images, arrays["arr_0"].transpose(0, 3, 1, 2))
        _, (as_data,) = evaluate(settings(kept, tmp_path / "as-data"))
        assert as_data.value == pytest.approx(second[0].value, rel=1e-9)
        _, scores = evaluate(
            settings(kept, tmp_path / "self", data=str(kept), scores=("FD", "precision", "recall"))
        )
        assert [score.value for score in scores] == pytest.approx([0, 1, 1], abs=1e-9)

    def test_the_data_itself_is_perfect(self, warm, tmp_path):
        scores = ("FD", "precision", "recall", "SWD")
        npz = save_npz(tmp_path / "digits.npz", load_digits_images()[0].numpy())
        _, measured = evaluate(settings(npz, tmp_path / "run", scores=scores))
        assert [score.value for score in measured] == pytest.approx([0, 1, 1, 0], abs=1e-9)
        assert measured[0].name == "FD-digits-1797"
        folder = tmp_path / "folder"
        folder.mkdir()
        for index, image in enumerate(load_digits_images()[0][:90]):
            Image.fromarray(image[0].numpy()).save(folder / f"{index}.png")
        _, (score,) = evaluate(settings(folder, tmp_path / "self", data=str(folder)))
        assert score.value == pytest.approx(0, abs=1e-9)
        assert score.key["sampler"] == "images of folder"

    def test_images_sorted_by_class_have_the_error_of_shuffled_ones(self, warm, tmp_path):
        images, labels = (tensor.numpy()[:900] for tensor in load_digits_images())
        scores = []
        for name, order in [
            ("sorted", np.argsort(labels)),
            ("mixed", np.random.default_rng(0).permutation(900)),
        ]:
            npz = save_npz(tmp_path / f"{name}.npz", images[order])
            scores += evaluate(settings(npz, tmp_path / name))[1]
        assert scores[0].value == pytest.approx(scores[1].value, rel=1e-9)
        assert scores[0].error == pytest.approx(scores[1].error, rel=1e-6)

    def test_grey_samples_are_compared_with_images_in_colour(self, warm, tiny, tmp_path):
        colour = noise(40, channels=3, seed=2)
        grey = [Image.fromarray(one.transpose(1, 2, 0)).convert("L") for one in colour]
        save_npz(tmp_path / "grey.npz", np.stack([np.asarray(one) for one in grey])[:, None])
        save_npz(tmp_path / "colour.npz", colour)
        same = {"samples": 30, "samplers": ("one-step",)}
        _, (wanted,) = evaluate(settings(tiny, tmp_path / "a", data=str(tmp_path / "grey.npz"), **same))
        _, (found,) = evaluate(
            settings(tiny, tmp_path / "b", data=str(tmp_path / "colour.npz"), channels=1, **same)
        )
        assert (found.value, found.key) == (wanted.value, wanted.key)

    def test_what_was_measured_before_a_failure_is_written(self, warm, tmp_path, monkeypatch):
        estimate_all = module.estimate_all

        def failing(kinds, *sets):
            if "recall" in kinds:
                raise UserError("not now")
            return estimate_all(kinds, *sets)

        monkeypatch.setattr(module, "estimate_all", failing)
        npz = save_npz(tmp_path / "images.npz", noise(70))
        with pytest.raises(UserError, match="not now"):
            evaluate(settings(npz, tmp_path / "run", scores=("precision", "FD", "recall")))
        assert not (tmp_path / "run" / "scores.json").exists(), "precision comes with recall"
        with pytest.raises(UserError, match="not now"):
            evaluate(settings(npz, tmp_path / "run", scores=("FD", "SWD", "recall", "IS")))
        assert [row["kind"] for row in read_json(tmp_path / "run" / "scores.json")] == ["FD", "SWD"]

    def test_what_a_run_was_trained_with_is_taken(self, warm, tiny, monkeypatch, tmp_path):
        monkeypatch.setenv("CM_RAY_RUNS", str(tmp_path / "runs"))
        config = dataclasses.replace(settings(tiny, "", samples=100), data="", extractor="")
        run, scores = evaluate(config)
        assert run.root == tmp_path / "runs" / "evaluate-tiny"
        assert [score.metric for score in scores] == ["FD-digits-100/one-step", "FD-digits-100/multistep@2.0"]
        again, _ = evaluate(dataclasses.replace(config, source=str(tiny / "model")))
        assert again.root == run.root, "the model of that run, and its settings"

    def test_only_what_a_score_needs_travels(self, warm, tiny, tmp_path, monkeypatch, capsys):
        finished, units = Supervisor.finished, []

        def watched(self, submit, work):
            for number, unit in finished(self, submit, work):
                units.append((unit.size, unit.images is not None, unit.features is not None))
                yield number, unit

        put, puts = SamplerPool.put, []
        monkeypatch.setattr(Supervisor, "finished", watched)
        monkeypatch.setattr(
            SamplerPool, "put", lambda self, *folders: puts.append(folders[0]) or put(self, *folders)
        )
        npz = save_npz(tmp_path / "data.npz", noise(50))
        few = {"data": str(npz), "samples": 60, "batch_size": 2}
        evaluate(settings(tiny, tmp_path / "a", **few))
        grids = [unit for unit in units if unit[1]]
        assert [size for size, *_ in grids] == [2, 2] * 2, "two samplers, each a grid of four"
        assert not any(features for _, _, features in units)
        assert sum(size for size, *_ in units) == 50 + 2 * (60 + 4)
        assert len(puts) == 1, "weights are put once for all samplers"
        said = capsys.readouterr().err
        assert said.count("warning: 60 samples are not more than 64 features") == 1
        assert said.count("warning: 50 images of data are not more than 64 features") == 1
        assert "features of data, computed once for this extractor:" in said

        units.clear()
        evaluate(settings(npz, tmp_path / "b", data=str(npz), scores=("IS", "SWD")))
        assert units
        assert all(images and features for _, images, features in units)
        assert sum(size for size, *_ in units) == 50, "the data are not asked for features"
        said = capsys.readouterr().err
        assert "warning" not in said, "which is of the Fréchet distance"


@pytest.mark.ray
class TestInterruptions:
    """The same call goes on, and nothing is made twice."""

    def test_finished_parts_are_not_made_again(self, scored, warm, tiny, tmp_path, requests):
        call = settings(tiny, tmp_path / "run", samples=COUNT, scores=EVERYTHING)
        requests.most = GROUPS + 7  # in the middle of the second sampler
        with pytest.raises(Killed):
            evaluate(call)
        work = tmp_path / "run" / "evaluation-work"
        assert len(list(work.glob("*.safetensors"))) == GROUPS + 7
        assert len(read_json(tmp_path / "run" / "scores.json")) == len(EVERYTHING), "what is done is written"
        broken = sorted(work.glob("multistep*"))[0]
        broken.write_bytes(broken.read_bytes()[:-10])
        stale = tmp_path / "run" / "samples" / ".one-step.npz.0123.part"
        stale.write_bytes(b"half of it")
        done, requests.most = list(requests), 10**9
        requests.clear()
        _, scores = evaluate(call)
        assert len(requests) == GROUPS - 7 + 1, "and the one that is not whole"
        assert len(set(done) & set(requests)) == 1
        assert scores == scored[1], "to the bit"
        assert not work.exists()
        assert not stale.exists()

    def test_a_part_is_made_again_when_more_is_wanted_of_it(self, warm, tiny, tmp_path, requests):
        requests.most = 3
        for scores in (("FD",), ("FD", "KID")):
            with pytest.raises(Killed):
                evaluate(settings(tiny, tmp_path / "run", samples=100, samplers=("one-step",), scores=scores))
            requests.most += 4
        assert [first for _, first in requests] == [0, 5, 10, 0, 5, 10, 15]
        requests.most = 10**9
        evaluate(settings(tiny, tmp_path / "run", samples=100, samplers=("one-step",)))
        assert [first for _, first in requests[7:]] == [*range(20, 100, 5)]

    def test_a_directory_keeps_the_scores_of_one_source(self, warm, tiny, tmp_path):
        npz = save_npz(tmp_path / "images.npz", noise(70))
        evaluate(settings(npz, tmp_path / "run"))
        rows = (tmp_path / "run" / "scores.json").read_text()
        save_npz(npz, noise(70, seed=1))
        with pytest.raises(UserError, match=r"holds scores of .*images\.npz with other content"):
            evaluate(settings(npz, tmp_path / "run"))
        with pytest.raises(UserError, match=r"choose another directory"):
            evaluate(settings(tiny, tmp_path / "run"))
        assert (tmp_path / "run" / "scores.json").read_text() == rows
        (tmp_path / "run" / "scores.json").write_text('[{"value": 1}]')
        save_npz(npz, noise(70))
        with pytest.raises(UserError, match=r"scores.json is not as cm_ray writes it"):
            evaluate(settings(npz, tmp_path / "run"))


@pytest.mark.ray
def test_a_champion_is_scored_and_mlflow_is_told(warm, tiny, tmp_path, monkeypatch):
    from cm_ray.tracking.registry import Registration, register_model
    from cm_ray.tracking.store import calling_mlflow, default_uri, open_client

    uri = default_uri(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with calling_mlflow(5):
        client = open_client(uri)
        made = client.create_experiment("x", artifact_location=str(tmp_path / "artifacts"))
        training = client.create_run(made).info.run_id
        register_model(client, Registration(name="tiny", model=tiny / "model", run_id=training))
    call = settings(
        "models:/tiny@champion", tmp_path / "run", samples=80, scores=("FD", "SWD"), tracking_uri=""
    )
    _, scores = evaluate(call)
    _, others = evaluate(dataclasses.replace(call, seed=5))
    with calling_mlflow(5):
        experiment = client.get_experiment_by_name("cm_ray").experiment_id
        other, told = client.search_runs([experiment], order_by=["attributes.start_time DESC"])
        files = {file.path for file in client.list_artifacts(told.info.run_id)}
    assert (told.info.status, told.info.run_name) == ("FINISHED", "run")
    clean = {name.replace("@", "_"): score.value for name, score in by_metric(scores).items()}
    assert told.data.metrics == clean
    assert len(clean) == 4
    assert told.data.params["source"] == "models:/tiny@champion"
    assert told.data.params["data"] == "digits"
    assert {"scores.json", "scores.md", "one-step.png", "multistep-2.0.png"} <= files
    assert [run.data.params["seed"] for run in (told, other)] == ["1", "5"]
    again = {name.replace("@", "_"): score.value for name, score in by_metric(others).items()}
    assert other.data.metrics == again, "of another seed, and beside the first one's"
    assert again.keys() == clean.keys()
    assert again != clean
    _, untracked = evaluate(
        dataclasses.replace(call, tracking_uri="none", run_dir=str(tmp_path / "untracked"))
    )
    assert untracked == scores, "the registry is asked all the same"
    assert not (tmp_path / "untracked" / "tracking").exists()


@pytest.mark.ray
def test_the_command_scores_images(warm, tmp_path, monkeypatch, capsys):
    npz = save_npz(tmp_path / "images.npz", noise(90))
    command = ["evaluate.py", npz, "--data", npz, "--extractor", "digits", "--tracking-uri", "none"]
    command += ["--scores", "FD", "recall", "--run-dir", tmp_path / "run", "--actors.cpus-each", "0.5"]
    code, said = job(command, monkeypatch, capsys)
    assert code == 0, said.err
    assert "| recall-digits-90 | `images of images` | none | 1 |" in said.out
    assert str(tmp_path / "run" / "scores.json") in said.out
    assert "FD-digits-90/images of images: " in said.err


def job(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "jobs" / "evaluate.py"), run_name="__main__")
    return ended.value.code, capsys.readouterr()


def test_help_is_complete(monkeypatch, capsys):
    code, said = job(["evaluate.py", "--help"], monkeypatch, capsys)
    assert code == 0
    for field in dataclasses.fields(Evaluation):
        option = "SOURCE" if field.name == "source" else f"--{field.name.replace('_', '-')}"
        assert option in said.out
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said.out).split())
    for sentence in (
        "cm-ray score runs/demo",
        "models:/NAME@ALIAS",
        "improved precision and recall",
        "0: as many as there are images to compare with",
        "the same command goes on from there",
        "--actors.count",
        "--debug",
    ):
        assert sentence in text


def refused(sentence, source, tmp_path, **changes):
    """It is refused in one sentence; the directory holds no more than its lock."""
    with pytest.raises(UserError, match=sentence) as told:
        evaluate(settings(source, tmp_path / "run", **changes))
    assert "\n" not in str(told.value)
    left = {path.name for path in (tmp_path / "run").rglob("*")} if (tmp_path / "run").exists() else set()
    assert left <= {".lock"}


@pytest.fixture
def no_cluster(monkeypatch):
    """A mistake that shows without the data is refused before Ray is started."""
    monkeypatch.setattr(module, "connected", lambda: pytest.fail("Ray was started"))


@pytest.mark.usefixtures("no_cluster")
class TestBadSettings:
    """One sentence each, before the cluster is started."""

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"samples": 1}, "--samples must be at least 2 for a score, or 0 .*, not 1"),
            ({"samples": -3}, "--samples must be at least 2 for a score, or 0 .*, not -3"),
            ({"grid": 0}, "--grid must be at least 1, not 0"),
            ({"seed": -1}, "--seed must be at least 0, not -1"),
            ({"batch_size": -1}, "--batch-size must be at least 0, not -1"),
            ({"scores": ()}, "--scores needs at least one"),
            ({"scores": ("FDinf",), "samples": 640}, "640 samples are not more than 10 x 64 features"),
            ({"samplers": ("one-stp",)}, "There is no sampler 'one-stp': did you mean 'one-step'"),
            ({"samplers": ("multistep@2.0,x",)}, "There is no sampler 'multistep@2.0,x'"),
            ({"samplers": ("multistep@1.0,2.0",)}, "Time points must descend"),
            ({"samplers": ("heun:18",)}, "heun:18 is for diffusion models"),
            ({"extractor": "digit"}, "There is no extractor 'digit': did you mean 'digits'"),
            ({"extractor": "nowhere:make"}, "The extractor nowhere:make cannot be imported"),
            ({"extractor": "cifar-resnet20", "weights": "/nowhere"}, r"/nowhere, given as .*SHA-256"),
            (
                {"extractor": f"{__name__}:Plain", "scores": ("FD", "IS")},
                "IS needs an extractor that classifies",
            ),
            ({"tracking_uri": "mlflow.db"}, "'mlflow.db' is not the address of an MLflow store"),
        ],
    )
    def test_of_a_model(self, changes, sentence, tiny, tmp_path):
        with forgotten_afterwards():
            if ":" in changes.get("extractor", ""):
                allow(changes["extractor"])  # as the command line does
            refused(sentence, tiny, tmp_path, **changes)

    def test_weights_that_are_others(self, tiny, tmp_path):
        (tmp_path / "weights.th").write_bytes(b"anything")
        extractor = {"extractor": "cifar-resnet20", "weights": str(tmp_path / "weights.th")}
        refused(r"weights\.th, given as the weights, has the SHA-256", tiny, tmp_path, **extractor)

    def test_a_diffusion_model_is_not_sampled_as_a_consistency_model(self, tmp_path):
        diffusion = Diffusion(boundary="none")
        model = save_tiny(tmp_path / "edm", diffusion=diffusion, sampler=Heun(steps=18))
        refused("one-step is for consistency models", model, tmp_path, samplers=("one-step",))

    def test_a_source_that_is_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CM_RAY_RUNS", str(tmp_path / "runs"))
        refused("no data set and no path 'digts'; did you mean 'digits'", "digts", tmp_path)
        refused("There is no /nowhere/run; give the path of", "/nowhere/run", tmp_path)
        refused("There is no MLflow store at", "models:/tiny@champion", tmp_path)
        refused("is not the address of a model; give models:/NAME@champion", "models:/tiny", tmp_path)
        (tmp_path / "empty").mkdir()
        refused("empty holds no images", tmp_path / "empty", tmp_path)
        (tmp_path / "notes.txt").write_text("no images")
        refused(
            "notes.txt is a file; give a folder, a zip or a tar archive of images",
            tmp_path / "notes.txt",
            tmp_path,
        )
        (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
        refused("is not a whole .npz file", tmp_path / "cut.npz", tmp_path)
        run = make_tiny_run(tmp_path / "begun")
        run.model.rename(tmp_path / "finished")
        refused("begun is not finished; repeat its command first", run.root, tmp_path)

    def test_settings_that_images_do_not_have(self, tmp_path):
        npz = save_npz(tmp_path / "images.npz", noise(30))
        for changes in ({"samples": 20}, {"samplers": ("one-step",)}, {"keep": "npz"}):
            refused("images.npz is not a model; leave out samples, samplers", npz, tmp_path, **changes)

    def test_nothing_to_compare_with(self, tiny, tmp_path):
        npz = save_npz(tmp_path / "images.npz", noise(30))
        refused(r"The images are not given; set data", npz, tmp_path, data="")
        refused(r"No feature extractor is given; set extractor to one of", npz, tmp_path, extractor="")
        refused(r"No feature extractor is given", npz, tmp_path, extractor="none")
        alone = save_tiny(tmp_path / "alone")
        refused(r"The images are not given", alone, tmp_path, data="")
        refused(r"No feature extractor is given", alone, tmp_path, extractor="")
        unscored = make_tiny_run(tmp_path / "unscored", extractor="none").root
        refused(r"No feature extractor is given", unscored, tmp_path, extractor="")

    @pytest.mark.parametrize(
        ("owner", "whose"),
        [
            ("config.json", "a training run"),
            ("search.json", "a search for time points"),
            ("result.json", "another job"),
            ("tracking.json", "another job"),
        ],
    )
    def test_the_directory_of_another_job(self, owner, whose, tiny, tmp_path):
        other = tmp_path / "other"
        write_json(other / owner, {})
        with pytest.raises(UserError, match=f"other belongs to {whose}; choose another directory"):
            evaluate(settings(tiny, other, samples=9, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
        assert {path.name for path in other.iterdir()} == {owner, ".lock"}
        assert not (tmp_path / "mlflow.db").exists()

    def test_another_process_has_the_directory(self, tiny, tmp_path):
        with RunDirectory(tmp_path / "run").locked():
            refused("Another process", tiny, tmp_path)


@pytest.mark.ray
class TestBadImages:
    """These mistakes show when the images are at hand; nothing is sampled, and MLflow is not told."""

    @pytest.fixture(autouse=True)
    def nothing_is_told(self, ray_cluster, monkeypatch):
        def refuse(*arguments, **settings):
            pytest.fail("actors were started")

        monkeypatch.setattr(module, "SamplerPool", refuse)
        monkeypatch.setattr(module.RunGroup, "finish", refuse)

    def test_images_of_another_shape(self, tiny, tmp_path):
        large = save_npz(tmp_path / "large.npz", noise(30, size=16))
        refused("large.npz are 16x16, and those of digits are 8x8; set size, or give", large, tmp_path)
        refused("tiny are 8x8, and those of large are 16x16; set size", tiny, tmp_path, data=str(large))
        colour = save_npz(tmp_path / "colour.npz", noise(30, channels=3))
        refused("are RGB, and those of digits are grey; set channels to 1 to compare", colour, tmp_path)

    def test_mixed_sizes(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        for size in (8, 9):
            Image.new("L", (size, size)).save(folder / f"{size}.png")
        refused(
            "different sizes: .*8x8.*9x9.*set size|different sizes: .*9x9.*8x8.*set size", folder, tmp_path
        )

    def test_too_few(self, tiny, tmp_path):
        one = save_npz(tmp_path / "one.npz", noise(1))
        refused("needs at least two images on each side, but .*one.npz gives 1", one, tmp_path)
        refused("and one has 1; give more", tiny, tmp_path, data=str(one), samples=9)
        few = save_npz(tmp_path / "few.npz", noise(200))
        refused("200 samples are not more than 10 x 64 features", few, tmp_path, scores=("FDinf",))
        refused("200 samples are not more", tiny, tmp_path, data=str(few), scores=("FDinf",))


@pytest.mark.ray
def test_images_that_the_extractor_is_not_made_for(warm, tmp_path):
    colour = save_npz(tmp_path / "colour.npz", noise(30, channels=3))
    with pytest.raises(UserError, match=r"digits needs uint8 images \(b, 1, 8, 8\), not .*\(30, 3, 8, 8\)"):
        evaluate(settings(colour, tmp_path / "run", data=str(colour)))


def test_a_runs_extractor_and_data_can_be_said_otherwise_in_part(tmp_path):
    (tmp_path / "moved.th").write_bytes(b"other weights")
    config = run_of(make_tiny_run(tmp_path / "run", extractor="cifar-resnet20").model)
    with pytest.raises(UserError, match=r"moved\.th, given as the weights, has the SHA-256"):
        scoring_setup(MeasuringSettings(weights=str(tmp_path / "moved.th")), config)
    config = run_of(make_tiny_run(tmp_path / "other", extractor="digits").model)
    measure = scoring_setup(MeasuringSettings(size=4), config)
    assert (measure.data.path, measure.data.size, measure.extractor.name) == ("digits", 4, "digits")
    config = run_of(make_tiny_run(tmp_path / "third", extractor="random-inception").model)
    assert scoring_setup(MeasuringSettings(), config).extractor.preprocess.startswith("legacy_tensorflow")
    assert scoring_setup(MeasuringSettings(resizing="clean"), config).extractor.preprocess.startswith("clean")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("models:/tiny@champion", "tiny@champion"),
        ("models:/tiny/3", "tiny-3"),
        ("runs/demo.v2/", "demo.v2"),
        ("samples/one.npz", "one"),
        ("run/model", "run"),
        ("digits", "digits"),
    ],
)
def test_what_an_evaluation_is_called(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tiny_run(tmp_path / "run")
    (tmp_path / "samples").mkdir()
    save_npz(tmp_path / "samples" / "one.npz", noise(2))
    assert name_of(source) == name


def test_names_of_samplers_with_many_time_points_fit_into_file_names():
    names = [file_name(parse(f"multistep:{count}", Diffusion())) for count in (2, 60, 61)]
    assert names[0] == "multistep-2.52"
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 100


@pytest.mark.ray
@pytest.mark.slow
def test_a_trained_run_scores_what_its_result_says(warm, tmp_path):
    """The quick form takes the same score from the code of training."""
    from cm_ray.cluster.training.run import train

    changes = {
        **{"steps": 4, "batch_size": 8, "checkpoint.every": 4, "evaluation.every": 0, "cluster.threads": 1},
        **{"network.channels": 8, "network.norm_groups": 4, "network.head_channels": 8, "network.blocks": 1},
        **{"evaluation.samples": 300, "tracking.uri": "none", "run_dir": str(tmp_path / "trained")},
    }
    train(override(recipes.ict_digits(), changes))
    result = json.loads((tmp_path / "trained" / "result.json").read_text())["scores"]
    call = settings(tmp_path / "trained", tmp_path / "run", samples=300, data="", extractor="")
    _, scores = evaluate(dataclasses.replace(call, samplers=("one-step", "multistep@2.0")))
    for row in result:
        ours = by_metric(scores)[Score.from_row(row).metric]
        assert ours.key == row["key"]
        assert ours.value == pytest.approx(row["value"], rel=1e-9)


def test_guided_samples_on_actors_are_those_of_this_process(ray_cluster, tmp_path):
    """The null class guides, or a weaker model, of whose digest the key of a score tells."""
    network = dataclasses.replace(NETWORK, conditional=True, label_dropout=0.1)
    facts = {"network": network, "diffusion": Diffusion(boundary="none"), "sampler": Heun(2)}
    for name, seed in (("strong", 0), ("weak", 1)):
        save_tiny(tmp_path / name, seed=seed, class_names=tuple("0123456789"), **facts)
    texts = ("own,guidance=2", "own")
    job = settings(tmp_path / "strong", tmp_path / "run", samples=60, samplers=texts, keep="npz")
    job = dataclasses.replace(job, weak=str(tmp_path / "weak"), labels="balanced")
    run, scores = evaluate(job)
    strong, weak = (cm.load(tmp_path / name, device="cpu") for name in ("strong", "weak"))
    sampler = strong.sampler("heun:2", guidance=2.0, weak=weak)
    assert [score.key["sampler"] for score in scores] == [text_of(sampler), "heun:2"]
    assert [score.key["nfe"] for score in scores] == [6, 3]
    with np.load(run.samples / f"{file_name(sampler)}.npz") as file:
        ours = strong.sample(60, seed=1, guidance=2.0, weak=weak)
        assert np.abs(file["arr_0"].astype(int) - ours).max() <= 1
