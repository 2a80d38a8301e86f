"""A model that is served by Ray Serve, asked by many at once; it is started once for all tests."""

import base64
import contextlib
import importlib
import io
import json
import re
import signal
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cm_ray.api.trained_model import TrainedModel
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.command_line.main import run as run_command
from cm_ray.command_line.settings.serve import Serving
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.measuring import ActorSettings
from tests.absent import installed
from tests.cluster.tiny import NETWORK, make_tiny_run
from tests.waiting import LIMIT_S, answers, wait_for

serve = installed("ray.serve", reason="Ray Serve is an extra: pip install 'cm_ray[serve]'")
serve_model = importlib.import_module("cm_ray.cluster.serving.serve_model")  # which needs Ray Serve
MOST = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    network = replace(NETWORK, conditional=True)
    return make_tiny_run(tmp_path_factory.mktemp("runs") / "run", network=network, time_points=((2.0,),))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def address(ray_cluster, run):
    """Serve in the cluster of all tests; nothing of it is left then."""
    actors = ActorSettings(count=1, cpus_each=0.5)
    settings = Serving(
        model=str(run.root), port=free_port(), actors=actors, most_samples=20, most_mib=1, batch_wait_ms=20
    )
    with serve_model.served(settings) as (at, replicas):
        assert str(replicas) == "1 actor on a CPU core"
        assert at == f"http://127.0.0.1:{settings.port}"
        with (
            pytest.raises(UserError, match="Ray Serve already runs in this cluster"),
            serve_model.served(settings),
        ):
            pass
        yield at
    assert not serve.status().proxies
    assert not answers(f"{at}/health")


def ask(address, path, **values):
    """Return the answer's body; a refusal raises HTTPError."""
    body = json.dumps(values).encode()
    request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return answer.read()


def got(address, path):
    with urllib.request.urlopen(address + path, timeout=LIMIT_S) as answer:
        return answer.read().decode()


def arrays(body):
    return np.load(io.BytesIO(body))["arr_0"]


def test_many_at_once_get_the_bits_that_the_model_makes(address, run):
    model = TrainedModel(load_model(run.model))
    questions = [
        {"samples": 1 + number % 3, "seed": number, "steps": 1 + number % 2, "label": str(number % 10)}
        for number in range(24)
    ]
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda asked: ask(address, "/sample", format="npz", **asked), questions))
    for asked, answer in zip(questions, answers, strict=True):
        rest = {name: value for name, value in asked.items() if name != "samples"}
        expected = model.sample(MOST, batch_size=MOST, **rest)[: asked["samples"]]
        np.testing.assert_array_equal(arrays(answer), expected)
    large = arrays(ask(address, "/sample", samples=20, seed=5, format="npz"))
    np.testing.assert_array_equal(large, model.sample(2 * MOST, batch_size=MOST, seed=5)[:20])
    assert largest_batch(address) > 3, "images of several requests were made together"


def largest_batch(address):
    """Return a size that some batch had more images than, by the metrics that Ray exports in its own time."""

    def buckets():
        told = re.findall(
            r'^ray_serve_actual_batch_size_bucket.*le="([\d.]+)".* ([\d.]+)$', got(address, "/metrics"), re.M
        )
        return {float(size): float(count) for size, count in told}

    def told():
        return buckets() and re.search(
            r'^ray_cm_ray_images_total.*task="sample"', got(address, "/metrics"), re.M
        )

    wait_for(told, "metrics of images and batches")
    counts = buckets()
    return max((size for size, count in counts.items() if count < max(counts.values())), default=0)


def test_an_edit_and_what_is_told(address, run):
    model = TrainedModel(load_model(run.model))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    answer = ask(address, "/edit", task="upscale", images=[text], label="3", steps=3)
    expected = model.edit("upscale", np.stack([pixels] * MOST)[..., None], label="3", steps=3)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer))), expected[..., 0])
    assert json.loads(got(address, "/health"))["status"] == "ok"
    assert json.loads(got(address, "/model"))["most_samples"] == 20
    for asked, status in (({"samples": 21}, 422), ({"label": "7" * (1 << 20)}, 413)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, "/sample", **asked)
        assert refused.value.code == status
        assert json.load(refused.value)["error"].endswith(".")


def test_what_cannot_be_served_is_refused_before_ray(tmp_path, capsys, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command(["serve", "nothing"]) == 2
    assert "nothing is not a model" in capsys.readouterr().err
    assert run_command(["serve", str(run.root), "--port", "70000"]) == 2
    assert "--port must be 1 to 65535" in capsys.readouterr().err
    assert run_command(["serve", str(run.root), "--most-steps", "0"]) == 2
    assert "--most-steps must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_and_ends_by_an_interrupt(number, monkeypatch, capsys):
    ended = []

    @contextlib.contextmanager
    def nothing(settings):
        yield "http://127.0.0.1:8000", Actors(count=2, cpus=1)
        ended.append(settings.model)

    monkeypatch.setattr(serve_model, "served", nothing)
    monkeypatch.setattr(serve_model, "watch", lambda: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)
    try:
        serve_model.serve_model(Serving(model="runs/demo"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out.startswith(
        "http://127.0.0.1:8000 serves runs/demo by 2 actors on a CPU core each; press Ctrl+C to stop."
    )
    assert ended == ["runs/demo"]


def test_an_address_that_is_taken_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"Could not listen at 127\.0\.0\.1"):
            serve_model.check_free(Serving(model="any", port=taken.getsockname()[1]))
