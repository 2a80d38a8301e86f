"""Objects: conditions hold, passing failures are repeated, others are one sentence."""

from datetime import timedelta

import pytest

import cm_ray as cm
from cm_ray.remote import objects as objects_module
from cm_ray.remote.address import checked_address
from cm_ray.remote.objects import ONE_PUT, Conflict, Objects


@pytest.fixture
def objects(store):
    return Objects(f"{store.bucket()}/a folder")


def test_an_object_is_created_once_and_replaced_by_whoever_knows_it(objects):
    first = objects.create("x", b"one")
    with pytest.raises(Conflict):
        objects.create("x", b"two")
    second = objects.replace("x", b"two", first)
    with pytest.raises(Conflict):
        objects.replace("x", b"three", first)
    assert objects.read("x") == (b"two", second)
    objects.remove("x")
    objects.remove("x")
    with pytest.raises(Conflict):
        objects.replace("x", b"three", second)
    with pytest.raises(FileNotFoundError):
        objects.read("x")


def test_large_files_come_back_as_they_were(objects, tmp_path):
    content = bytes(range(256)) * (3 * ONE_PUT // 256 + 1)
    (tmp_path / "a").write_bytes(content)
    etag = objects.write("deep/large", tmp_path / "a")
    listed = objects.list()
    assert {key: (stored.size, stored.etag) for key, stored in listed.items()} == {
        "deep/large": (len(content), etag)
    }
    objects.fetch("deep/large", listed["deep/large"], tmp_path / "b" / "c")
    assert (tmp_path / "b" / "c").read_bytes() == content


def test_requests_that_fail_for_a_while_are_repeated(objects, store):
    failures = iter([503, 500, 503])
    with store.faults(lambda method, path: next(failures, None)):
        objects.create("x", b"one")
    failures = iter([503, 503])
    with store.faults(lambda method, path: next(failures, None)):
        assert objects.read("x")[0] == b"one"


def test_a_write_whose_answer_is_lost_is_known_as_the_own_one(objects, store):
    lost = iter([("lost", 503)])
    with store.faults(lambda method, path: next(lost, None) if method == "PUT" else None):
        etag = objects.create("x", b"one")
    lost = iter([("lost", 503)])
    with store.faults(lambda method, path: next(lost, None) if method == "PUT" else None):
        etag = objects.replace("x", b"two", etag)
    assert objects.read("x") == (b"two", etag)


def test_a_request_that_times_out_is_repeated(store, monkeypatch):
    monkeypatch.setattr(objects_module, "TIMEOUT", timedelta(seconds=1))
    objects = Objects(store.bucket())
    late = iter([("late", 2)])
    with store.faults(lambda method, path: next(late, None)):
        objects.create("x", b"one")
    assert objects.read("x")[0] == b"one"


def test_a_store_that_does_not_answer_and_one_that_refuses_are_a_sentence_each(store, monkeypatch):
    monkeypatch.setattr(objects_module, "RETRY_LIMIT", timedelta(seconds=0.2))
    monkeypatch.setattr(objects_module, "_PAUSE_S", 0.01)
    objects = Objects(f"{store.bucket()}/run")
    with (
        store.faults(lambda method, path: 503),
        pytest.raises(cm.UserError, match=r"storage at s3://.*/run does not answer .*; repeat the command"),
    ):
        objects.read("x")
    with (
        store.faults(lambda method, path: 403),
        pytest.raises(cm.UserError, match=r"storage at s3://.*/run refuses these credentials"),
    ):
        objects.list()
    with pytest.raises(cm.UserError, match=r"s3://there-is-none"):
        Objects("s3://there-is-none/run").list()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("abfs:/x/y", "cannot be used: give a folder, or an address that begins with s3://, gs://"),
        ("s3:", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket/x", "by environment variables"),
        ("s3://bucket/x?versionId=3", "by environment variables"),
        ("s3://bucket/../x", "leads through .."),
    ],
)
def test_addresses_that_cannot_be_used_are_refused(address, sentence):
    with pytest.raises(cm.UserError, match=sentence) as refused:
        checked_address(address, write=False)
    assert "secret" not in str(refused.value)


def test_addresses_have_one_form_and_the_web_is_not_written_to():
    assert checked_address("S3:/bucket/run/", write=True) == "s3://bucket/run"
    assert checked_address("https://example.org/m", write=False) == "https://example.org/m"
    with pytest.raises(cm.UserError, match="cannot be written: give a folder"):
        checked_address("https://example.org/m", write=True)
