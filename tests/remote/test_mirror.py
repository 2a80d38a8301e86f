"""A folder and its copy: whatever is interrupted, it can be gone on from; nothing is written twice."""

import contextlib
import json

import pytest

import cm_ray as cm
from cm_ray.remote import pieces as pieces_module
from cm_ray.remote.lease import leased
from cm_ray.remote.mirror import Mirror
from cm_ray.remote.objects import Objects
from cm_ray.runs.remote_run import ORDER


@pytest.fixture
def address(store):
    return f"{store.bucket()}/run"


@pytest.fixture
def mirror(address, tmp_path):
    objects = Objects(address)
    with leased(objects, print) as lease:
        yield Mirror(objects, tmp_path / "here", ORDER, lease.token)


def write(folder, key, content):
    file = folder / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def everything(key):
    return True


def copied(address, folder):
    """Return all files of a new copy, by their keys."""
    Mirror(Objects(address), folder, ORDER).pull(everything)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def rows(*steps):
    return "".join(json.dumps({"step": step}) + "\n" for step in steps).encode()


def test_a_copy_of_the_copy_has_the_same_files(mirror, address, tmp_path):
    files = {
        "checkpoints/step-00000001/state.safetensors": b"a" * 100,
        "checkpoints/step-00000001/meta.json": b"{}",
        "metrics.jsonl": rows(1, 2),
        "config.json": b"{}",
    }
    for key, content in files.items():
        write(mirror.root, key, content)
    write(mirror.root, "scoring-work/x", b"")
    write(mirror.root, ".result.json.abc.part", b"")
    mirror.publish()
    mirror.wait()
    assert copied(address, tmp_path / "there") == files


def test_nothing_is_written_twice(mirror, address, store):
    write(mirror.root, "checkpoints/step-00000001/state.safetensors", b"a" * 100)
    write(mirror.root, "config.json", b"{}")
    write(mirror.root, "metrics.jsonl", rows(1))
    mirror.publish()
    mirror.wait()
    before = len(store.requests("PUT"))
    write(mirror.root, "config.json", b"{}")
    mirror.publish()
    mirror.wait()
    assert len(store.requests("PUT")) == before
    again = Mirror(mirror.objects, mirror.root.parent / "again", ORDER, mirror._writer.token)
    again.pull(everything)
    again.publish()
    again.wait()
    assert len(store.requests("PUT")) == before


def interrupted(place, folder, store, allowed):
    """Make the files of a checkpoint with a score in the order of a training; writes fail after some."""
    objects, step, count = Objects(place), "checkpoints/step-00000001", iter(range(10_000))

    def fault(method, path):
        writes = method in ("PUT", "DELETE", "POST") and ".lease" not in path
        return 403 if writes and next(count) >= allowed else None

    with leased(objects, print) as lease, store.faults(fault):
        mirror = Mirror(objects, folder, ORDER, lease.token)
        write(folder, "metrics.jsonl", rows(1))
        mirror.publish()
        write(folder, f"{step}/state.safetensors", b"state")
        write(folder, f"{step}/meta.json", b"{}")
        write(folder, "checkpoints/best.json", b'{"step": 1}')
        write(folder, "metrics.jsonl", rows(1) + b'{"step": 1, "scores": []}\n')
        with contextlib.suppress(cm.UserError):
            mirror.publish()
            write(folder, "result.json", b"{}")
            mirror.publish()
            mirror.wait()
        mirror.close()


def test_a_kill_at_any_request_leaves_no_part_that_looks_complete(address, store, tmp_path):
    """A marker is never there without its content, nor a row of scores without the best checkpoint."""
    for allowed in range(100):
        interrupted(f"{address}-{allowed}", tmp_path / f"{allowed}", store, allowed)
        found = copied(f"{address}-{allowed}", tmp_path / f"{allowed}-copy")
        log = found.get("metrics.jsonl", b"")
        if "checkpoints/step-00000001/meta.json" in found:
            assert "checkpoints/step-00000001/state.safetensors" in found
            assert rows(1) in log
        if "checkpoints/best.json" in found:
            assert "checkpoints/step-00000001/meta.json" in found
        if b"scores" in log:
            assert "checkpoints/best.json" in found
        if "result.json" in found:
            assert b"scores" in log
            break
    assert allowed == 6


def without_the_first_of_two_checkpoints(mirror, tmp_path):
    """Return another copy, which has only the markers, and of the first checkpoint removed even that."""
    for step in (1, 2):
        write(mirror.root, f"checkpoints/step-0000000{step}/state.safetensors", b"s" * step)
        write(mirror.root, f"checkpoints/step-0000000{step}/meta.json", b"{}")
    mirror.publish()
    mirror.wait()
    other = Mirror(mirror.objects, tmp_path / "other", ORDER, mirror._writer.token)
    other.pull(lambda key: key.endswith("meta.json"))
    (other.root / "checkpoints/step-00000001/meta.json").unlink()
    return other


def test_a_removed_checkpoint_is_removed_there_marker_first(mirror, address, store, tmp_path):
    other = without_the_first_of_two_checkpoints(mirror, tmp_path)
    removals = iter([None, 403])
    with store.faults(lambda method, path: next(removals, 403) if method == "POST" else None):
        other.publish()
        with pytest.raises(cm.UserError, match="refuses these credentials"):
            other.wait()
    assert set(copied(address, tmp_path / "half")) == {
        "checkpoints/step-00000001/state.safetensors",
        "checkpoints/step-00000002/state.safetensors",
        "checkpoints/step-00000002/meta.json",
    }


def test_a_removed_checkpoint_is_gone_though_only_its_marker_was_here(mirror, address, tmp_path):
    other = without_the_first_of_two_checkpoints(mirror, tmp_path)
    other.publish()
    other.wait()
    assert set(copied(address, tmp_path / "there")) == {
        "checkpoints/step-00000002/state.safetensors",
        "checkpoints/step-00000002/meta.json",
    }


def test_a_log_goes_up_in_pieces_and_forgets_what_is_repeated(mirror, address, store, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces_module, "_FULL", 60)
    for last in range(1, 21):
        write(mirror.root, "metrics.jsonl", rows(*range(last)))
        mirror.publish()
    mirror.wait()
    pieces = Objects(address).list("metrics")
    assert len(pieces) > 3
    assert all(stored.size < 120 for stored in pieces.values())
    assert copied(address, tmp_path / "a")["metrics.jsonl"] == rows(*range(20))
    other = Mirror(mirror.objects, tmp_path / "other", ORDER, mirror._writer.token)
    other.pull(everything)
    (other.root / "new").write_bytes(rows(*range(7)) + rows(100))
    (other.root / "new").replace(other.root / "metrics.jsonl")
    other.publish()
    other.wait()
    assert copied(address, tmp_path / "b")["metrics.jsonl"] == rows(*range(7)) + rows(100)
    mirror.pull(everything)
    assert (mirror.root / "metrics.jsonl").read_bytes() == rows(*range(7)) + rows(100)


def test_after_a_write_that_failed_nothing_later_is_written(mirror, address, store, tmp_path):
    write(mirror.root, "checkpoints/step-00000001/state.safetensors", b"s")
    with store.faults(lambda method, path: 403 if path.endswith("state.safetensors") else None):
        mirror.publish()
        write(mirror.root, "checkpoints/step-00000001/meta.json", b"{}")
        mirror._pending[0].exception()
    with pytest.raises(cm.UserError, match="refuses these credentials"):
        mirror.wait()
    mirror.publish()
    mirror.wait()
    assert copied(address, tmp_path / "there") == {}
