"""CIFAR-10 from its archive: fetched once, resumed, checked."""

import contextlib
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.named import cifar10
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError


def read(source, rows=1000):
    """All images and labels, part after part."""
    batches = [batch for part in source.parts(rows) for batch in part.read(ReadOptions())]
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and honours Range."""

    def do_GET(self):
        data = Path(self.translate_path(self.path)).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(RangeHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.starts = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """A server of an archive like CIFAR-10's with 4 images a file; yields (server, records, archive)."""
    records = np.random.default_rng(0).integers(0, 256, (6, 4, 3073), np.uint8)
    records[..., 0] %= 10
    archive = tmp_path / "served" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    names = [*cifar10.SPLITS["train"], *cifar10.SPLITS["test"]]
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in zip(names, records, strict=True):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = content.size
            tar.addfile(member, io.BytesIO(content.tobytes()))
        tar.addfile(tarfile.TarInfo("../../outside.txt"), io.BytesIO())
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    with served(archive.parent) as server:
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        yield server, records, archive


def test_cifar10_is_fetched_once(small_cifar10, tmp_path):
    server, records, _ = small_cifar10
    images, labels = read(open_source("cifar10"), rows=6)
    assert labels.tolist() == records[:5, :, 0].ravel().tolist()
    np.testing.assert_array_equal(
        images.transpose(0, 3, 1, 2).reshape(20, -1), records[:5, :, 1:].reshape(20, -1)
    )
    assert read(open_source("cifar10", "test"))[1].tolist() == records[5, :, 0].tolist()
    assert server.starts == [0]
    assert not list(tmp_path.rglob("outside.txt"))


def test_cifar10_download_goes_on(small_cifar10, tmp_path):
    server, _, archive = small_cifar10
    folder = tmp_path / "cache" / "cifar10" / cifar10.SHA256[:16]
    folder.mkdir(parents=True)
    (folder / f"{archive.name}.download").write_bytes(archive.read_bytes()[:1000])
    assert len(read(open_source("cifar10"))[0]) == 20
    assert server.starts == [1000]


def test_cifar10_of_another_content(small_cifar10, monkeypatch):
    monkeypatch.setattr(cifar10, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"http://127.0.0.1.*another SHA-256; fetch .* by hand"):
        open_source("cifar10").parts(10)


def test_cifar10_out_of_reach(small_cifar10, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    with pytest.raises(UserError, match=r"Could not download .*put it at"):
        open_source("cifar10").parts(10)
