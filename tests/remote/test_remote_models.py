"""Models at addresses, and files that commands write there."""

import functools
import http.server
import threading

import numpy as np
import pytest

import cm_ray as cm
from cm_ray.command_line.main import run
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.formats.reading import load_model
from cm_ray.remote.copies import fetched_folder
from cm_ray.remote.objects import Objects
from tests.cluster.tiny import save_tiny


def put(folder, address):
    objects = Objects(address)
    for file in folder.rglob("*"):
        if file.is_file():
            objects.write(str(file.relative_to(folder)), file)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model") / "model")


def same(a, b):
    return np.array_equal(np.asarray(a.sample(2, seed=0)), np.asarray(b.sample(2, seed=0)))


def test_a_model_is_loaded_from_a_folder_a_run_and_a_file(store, model, tmp_path):
    bucket, here = store.bucket(), cm.load(model)
    put(model, f"{bucket}/one")
    assert same(cm.load(f"{bucket}/one"), here)
    put(model, f"{bucket}/run/model")
    Objects(f"{bucket}/run").create("config.json", b"{}")
    with pytest.raises(cm.UserError, match=r"The run at s3://.*/run is not finished"):
        cm.load(f"{bucket}/run")
    file = export_model(load_model(model), "safetensors", tmp_path / "one.safetensors")
    Objects(bucket).write("files/one.safetensors", file)
    assert same(cm.load(f"{bucket}/files/one.safetensors"), here)
    for missing in ("files/none.safetensors", "nothing"):
        with pytest.raises(cm.UserError, match=f"There is no file at {bucket}/{missing}; give"):
            cm.load(f"{bucket}/{missing}")
    with pytest.raises(cm.UserError, match=f"^{bucket}/files is not a model"):
        cm.load(f"{bucket}/files")


def test_a_model_on_the_web_is_read(model, tmp_path):
    file = export_model(load_model(model), "safetensors", tmp_path / "one.safetensors")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/{file.name}"
        assert same(cm.load(address), cm.load(model))
        with pytest.raises(cm.UserError, match="There is no file at http://"):
            cm.load(f"{address}.none")
    finally:
        server.shutdown()


def test_samples_are_written_to_an_address(store, model, tmp_path, capsys):
    bucket = store.bucket()
    put(model, f"{bucket}/one")
    assert run(["sample", f"{bucket}/one", "--samples", "4", "--out", f"{bucket}/drawn/four"]) == 0
    assert f"{bucket}/drawn/four.png" in capsys.readouterr().out
    assert run(["sample", str(model), "--samples", "4", "--out", str(tmp_path / "four")]) == 0
    there = fetched_folder(f"{bucket}/drawn", bool)
    assert (there / "four.npz").read_bytes() == (tmp_path / "four.npz").read_bytes()


@pytest.mark.parametrize(("form", "name"), [("safetensors", "out.safetensors"), ("model", "out")])
def test_a_model_is_exported_to_an_address(form, name, store, model, capsys):
    bucket = store.bucket()
    words = ["export", str(model), "--format", form, "--out", f"{bucket}/models/out"]
    assert run(words) == 0
    assert capsys.readouterr().out.strip() == f"{bucket}/models/{name}"
    assert same(cm.load(f"{bucket}/models/{name}"), cm.load(model))
    assert run(words) == 2
    assert f"{bucket}/models/{name} exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "denoise", "--model", "MODEL", "--image", "x.png", "--sigma", "1", "--out", "s3://bucket/x"],
        ["sweep", "digits_ict", "--run-dir", "s3://bucket/x"],
        ["time-points", "MODEL", "--data", "digits", "--extractor", "digits", "--run-dir", "s3://bucket/x"],
        ["time-points", "s3://bucket/model"],
        ["sample", "MODEL", "--out", "https://example.org/x"],
    ],
)
def test_what_an_address_cannot_be_used_for_is_refused_before_any_work(words, model, capsys):
    words = [str(model) if word == "MODEL" else word for word in words]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "is an address" in said or "cannot be written" in said, said
