"""Published weights are found where they may be, always checked, and never replaced by others."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.extractors.published_weights import CIFAR_RESNETS, INCEPTION_2015, PublishedWeights
from cm_ray.metrics.extractors.registry import open_extractor

NOWHERE = "http://127.0.0.1:9/weights.pth"  # nobody answers there


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of weights with keys as of DataParallel, in a folder of its own; the cache is empty."""
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOME_WEIGHTS", raising=False)
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"state_dict": {"module.w": torch.ones(2)}, "best": 1.0}, folder / "weights.pth")
    return folder / "weights.pth"


def published(file, url=NOWHERE, sha256=None):
    sha256 = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
    return PublishedWeights(url=url, sha256=sha256, variable="SOME_WEIGHTS")


def says_what_to_do(error, address, sha256, place):
    """One sentence says what to fetch, which variable may name it, and where to put it."""
    for part in (address, f"SHA-256 {sha256}", "SOME_WEIGHTS", str(place)):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("named", ["file", "folder"])
@pytest.mark.parametrize("by", ["path", "variable"])
def test_a_path_or_a_variable_names_the_file_or_its_folder(by, named, file, monkeypatch):
    place = file if named == "file" else file.parent
    if by == "variable":
        monkeypatch.setenv("SOME_WEIGHTS", str(place))
    weights = published(file)
    assert weights.find(place if by == "path" else "") == file
    state = weights.load(place if by == "path" else "")
    assert list(state) == ["w"]
    assert torch.equal(state["w"], torch.ones(2))


def test_what_is_named_decides_and_other_files_are_refused(file, monkeypatch):
    other = published(file, sha256="0" * 64)
    with pytest.raises(UserError, match="given as the weights, has the SHA-256") as error:
        other.find(file)
    says_what_to_do(error, NOWHERE, other.sha256, file)
    missing = file.parent / "missing.pth"
    monkeypatch.setenv("SOME_WEIGHTS", str(missing))
    with pytest.raises(UserError, match="named by SOME_WEIGHTS, is missing; download") as error:
        published(file).find()
    says_what_to_do(error, NOWHERE, published(file).sha256, missing)


def test_the_cache_is_filled_once_from_the_public_address(file, tmp_path, monkeypatch):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=file.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{file.name}"
        for _ in range(2):
            assert published(file, address).find() == tmp_path / "cache" / "weights" / file.name
        assert asked == [f"/{file.name}"]
        monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "other"))
        with pytest.raises(UserError, match="sent a file with another SHA-256") as error:
            published(file, address, sha256="0" * 64).find()
        says_what_to_do(error, address, "0" * 64, tmp_path / "other" / "weights" / file.name)
        assert not (tmp_path / "other" / "weights" / file.name).exists()
        server.shutdown()


def test_a_spoilt_cache_is_not_used(file, tmp_path):
    cached = tmp_path / "cache" / "weights" / file.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"something else")
    with pytest.raises(UserError, match="has another SHA-256") as error:
        published(file).find()
    says_what_to_do(error, NOWHERE, published(file).sha256, cached)


def test_missing_weights_say_where_they_are_and_where_to_put_them(file, tmp_path):
    with pytest.raises(UserError, match=f"Could not download {NOWHERE}") as error:
        published(file).find()
    place = tmp_path / "cache" / "weights" / file.name
    says_what_to_do(error, NOWHERE, published(file).sha256, place)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("inception-2015", INCEPTION_2015),
        ("cifar-resnet20", CIFAR_RESNETS[20]),
        ("cifar-resnet56", CIFAR_RESNETS[56]),
    ],
)
def test_extractors_refuse_other_weights(name, weights, tmp_path):
    file = tmp_path / weights.file_name
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match=f"download https://github.com/.*{weights.sha256}"):
        open_extractor(name, weights=file)


@pytest.mark.parametrize("weights", [INCEPTION_2015, *CIFAR_RESNETS.values()])
def test_published_names_carry_the_start_of_the_digest(weights):
    assert weights.sha256[:8] in weights.file_name
    assert len(weights.sha256) == 64
