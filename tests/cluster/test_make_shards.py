"""Making shards on Ray: whole, resumable, the same whatever ran before, with errors in one sentence."""

import contextlib
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm_ray.cluster.data import make_shards as module
from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.command_line.commands import shards
from cm_ray.command_line.settings.shards import Shards
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest, check_shards, load_all
from cm_ray.data.shards.shard_writer import WORK
from cm_ray.errors import UserError
from cm_ray.runs import console
from cm_ray.storage.files import locked
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SKIPPING = ReadOptions(on_bad_image="skip")


def save_images(folder, count, bad=(), grey=(), odd=()):
    """Write images in two classes; some broken, grey or of another size."""
    for i in range(count):
        path = folder / "ab"[i * 2 // count] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (9, 9) if i in odd else (6, 6)
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("L" if i in grey else "RGB").save(buffer, "png")
        path.write_bytes(b"broken" if i in bad else buffer.getvalue())
    return open_source(str(folder))


def inodes(out):
    """Inodes of finished parts and shards: a rewritten file has another one."""
    files = [*(out / WORK).glob("part-*.runs"), *out.glob("shard-*.parquet")]
    return {path.name: path.stat().st_ino for path in files}


def only_shards(out):
    """Names in a folder, without the manifest."""
    return sorted(path.name for path in out.iterdir() if path.name != "manifest.json")


def test_digits(tmp_path):
    seen = []
    manifest = make_shards(
        open_source("digits"), tmp_path / "out", rows_per_shard=500, progress=lambda *at: seen.append(at)
    )
    assert seen == [(done, 8) for done in range(1, 9)], "four parts are read, four shards are written"
    assert Manifest.load(tmp_path / "out") == manifest
    assert (manifest.count, manifest.source, manifest.shape) == (1797, "digits", (1, 8, 8))
    assert manifest.class_counts == (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
    assert only_shards(tmp_path / "out") == [shard.file for shard in manifest.shards]
    check_shards(tmp_path / "out", manifest, full=True)
    again = make_shards(open_source("digits"), tmp_path / "again", rows_per_shard=500)
    assert again == manifest


def test_a_finished_folder_is_taken_as_it_is(tmp_path):
    source, out = save_images(tmp_path / "in", 6), tmp_path / "out"
    manifest = make_shards(source, out, rows_per_shard=2)
    before = inodes(out)
    assert make_shards(source, out, rows_per_shard=2) == manifest
    assert make_shards(source, out, SKIPPING, rows_per_shard=2) == manifest
    assert inodes(out) == before
    for options in ({"rows_per_shard": 3}, {"rows_per_shard": 2, "options": ReadOptions(size=4)}):
        with pytest.raises(UserError, match="another source or other options; choose another out"):
            make_shards(source, out, **options)
    with pytest.raises(UserError, match="another source"):
        make_shards(open_source("digits"), out)


def test_a_resume_keeps_what_was_done(tmp_path):
    source, out = save_images(tmp_path / "in", 10), tmp_path / "out"
    bad = tmp_path / "in" / "b" / "008.png"
    good = bad.read_bytes()
    bad.write_bytes(b"broken")
    broken = open_source(str(tmp_path / "in"))
    with pytest.raises(UserError, match=r"008.png is not a readable image"):
        make_shards(broken, out, rows_per_shard=2)
    assert only_shards(out) == [WORK], "neither shards nor a manifest"
    kept = inodes(out)
    assert len(kept) == 4
    lost = sorted(kept)[2]
    (out / WORK / lost).with_suffix(".json").unlink()  # killed between the part and its note
    (out / ".shard-00004.parquet.1.part").write_bytes(b"killed while this was written")
    seen = []
    options = {"options": SKIPPING, "rows_per_shard": 2, "progress": lambda *at: seen.append(at)}
    with stopped_at_shard(2), pytest.raises(UserError, match="stopped"):
        make_shards(broken, out, **options)
    assert seen[:3] == [(3, 10), (4, 10), (5, 10)]
    assert {name for name, inode in kept.items() if inodes(out)[name] == inode} == {*kept} - {lost}
    kept = inodes(out)
    skipped = make_shards(broken, out, **options)
    assert skipped.skipped == 1
    assert inodes(out).items() >= {(name, kept[name]) for name in kept if name.startswith("shard")}
    assert sum(name.startswith("shard") for name in kept) >= 2
    assert only_shards(out) == [shard.file for shard in skipped.shards]
    assert make_shards(broken, tmp_path / "whole", **options) == skipped
    with pytest.raises(UserError, match="was made without 1 bad images; pass on_bad_image skip"):
        make_shards(broken, out, rows_per_shard=2)
    bad.write_bytes(good)
    with pytest.raises(UserError, match="another source"):  # its images have changed
        make_shards(source, out, rows_per_shard=2)


@contextlib.contextmanager
def stopped_at_shard(number):
    """Let the making of shards fail from one of them on."""
    real = module.make_shard

    def make(out, index, layout):
        if index >= number:
            raise UserError("stopped")
        return real(out, index, layout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_shard", make)
        yield


def test_touched_files_cost_no_work(tmp_path):
    source, out = save_images(tmp_path / "in", 6, bad=[5]), tmp_path / "out"
    with pytest.raises(UserError, match=r"005.png is not a readable image"):
        make_shards(source, out, rows_per_shard=2)
    kept = inodes(out)
    assert kept
    for file in (tmp_path / "in").rglob("*.png"):
        file.touch()
    again = open_source(str(tmp_path / "in"))
    with stopped_at_shard(0), pytest.raises(UserError, match="stopped"):
        make_shards(again, out, SKIPPING, rows_per_shard=2)
    assert kept.items() <= inodes(out).items()
    manifest = make_shards(again, out, SKIPPING, rows_per_shard=2)
    for file in (tmp_path / "in").rglob("*.png"):
        file.touch()
    assert make_shards(again, out, SKIPPING, rows_per_shard=2) == manifest


def test_images_that_change_while_they_are_read_are_refused(tmp_path):
    source, out = save_images(tmp_path / "in", 4), tmp_path / "out"
    first, last = (tmp_path / "in" / source.files[place] for place in (0, -1))

    def change(done, total):
        first.write_bytes(last.read_bytes())

    with pytest.raises(UserError, match="in has changed while shards were made of it; repeat the command"):
        make_shards(source, out, rows_per_shard=1, progress=change)
    assert not (out / "manifest.json").exists()
    make_shards(source, out, rows_per_shard=1)
    assert (load_all(out)[0][0] == load_all(out)[0][-1]).all()


def test_other_options_start_anew(tmp_path):
    source, out = save_images(tmp_path / "in", 6, odd=[5]), tmp_path / "out"
    with pytest.raises(UserError, match=r"is (6x6|9x9) and .* is (6x6|9x9); set size") as raised:
        make_shards(source, out, rows_per_shard=1)
    assert "\n" not in str(raised.value)
    assert not (out / "manifest.json").exists()
    manifest = make_shards(source, out, ReadOptions(size=4), rows_per_shard=4)  # what the message proposes
    assert only_shards(out) == ["shard-00000.parquet", "shard-00001.parquet"]
    assert (manifest.shape, manifest.class_names) == ((3, 4, 4), ("a", "b"))


def test_grey_parts_are_made_again_in_colour(tmp_path):
    source = save_images(tmp_path / "in", 8, grey=[0, 1, 2, 5])
    one = make_shards(source, tmp_path / "one", rows_per_shard=8)
    many = make_shards(source, tmp_path / "many", rows_per_shard=2)
    assert one.shape == many.shape == (3, 6, 6)
    np.testing.assert_array_equal(load_all(tmp_path / "one")[0], load_all(tmp_path / "many")[0])


def test_the_first_error_in_order_is_told_and_only_bad_data_is_too(tmp_path):
    source = save_images(tmp_path / "in", 4, bad=[0, 1, 2, 3])
    with pytest.raises(UserError, match=source.files[0]) as raised:
        make_shards(source, tmp_path / "out", rows_per_shard=1)
    assert type(raised.value) is UserError
    with pytest.raises(UserError, match=r"in has no readable image \(4 were skipped\)"):
        make_shards(source, tmp_path / "out", SKIPPING, rows_per_shard=1)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(UserError, match="is not empty and holds no shards; choose another out"):
            make_shards(open_source("digits"), tmp_path / name)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    for option in ({"rows_per_shard": 0}, {"size": -1}):
        with pytest.raises(UserError, match=r"^(rows_per_shard must be at least 1|size must not be .* -1)"):
            Shards(source="digits", out=tmp_path / "out", **option)


def test_a_second_run_waits_for_the_first(tmp_path):
    out, results = tmp_path / "out", []
    with locked(out / WORK / "lock"):
        thread = threading.Thread(target=lambda: results.append(make_shards(open_source("digits"), out)))
        thread.start()
        thread.join(0.5)
        assert not results
        manifest = make_shards(open_source("digits"), tmp_path / "other")
        for path in (tmp_path / "other").iterdir():  # the first finishes
            path.rename(out / path.name)
    thread.join(LIMIT_S)
    assert results == [manifest]
    assert not (out / WORK).exists()


def test_manifest_tells_people_the_numbers(tmp_path):
    manifest = make_shards(open_source("digits"), tmp_path / "out")
    content = json.loads((Path(tmp_path) / "out" / "manifest.json").read_text())
    assert (content["count"], content["classes"], content["fingerprint"]) == (1797, 10, manifest.fingerprint)


def test_the_job(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "LINES_S", 0)
    shards.run(Shards(source="digits", out=tmp_path / "out", size=16, rows_per_shard=1000))
    printed = capsys.readouterr()
    assert "1797 images of 16x16, grey, 10 classes: 0 (178), 1 (182), " in printed.out
    assert ", 9 (180); 2 shards; fingerprint" in printed.out
    assert printed.err.splitlines()[-1] == "task 4 of 4"
    with pytest.raises(UserError, match="did you mean 'digits'"):
        shards.run(Shards(source="digts", out=tmp_path / "no"))
    assert not (tmp_path / "no").exists()
