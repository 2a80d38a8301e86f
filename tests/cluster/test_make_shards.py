"""Making shards on Ray: whole, resumable, the same whatever ran before, with errors in one sentence."""

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.command_line.commands import shards
from cm_ray.command_line.settings.shards import Shards
from cm_ray.data.open_source import open_source
from cm_ray.data.shard_writer import WORK
from cm_ray.data.shards import Manifest, check_shards, load_all
from cm_ray.errors import UserError
from cm_ray.storage.files import locked
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


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
    """The numbers say which file is which: a rewritten one has another number."""
    return {path.name: path.stat().st_ino for path in out.glob("shard-*.parquet")}


def only_shards(out):
    """Names in a folder, without the manifest."""
    return sorted(path.name for path in out.iterdir() if path.name != "manifest.json")


def test_digits(tmp_path):
    seen = []
    manifest = make_shards(
        open_source("digits"), tmp_path / "out", rows_per_shard=500, progress=lambda *at: seen.append(at)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
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
    assert make_shards(source, out, rows_per_shard=2, on_bad_image="skip") == manifest
    assert inodes(out) == before
    for options in ({"rows_per_shard": 3}, {"rows_per_shard": 2, "size": 4}):
        with pytest.raises(UserError, match="another source or other options; choose another --out"):
            make_shards(source, out, **options)
    with pytest.raises(UserError, match="another source"):
        make_shards(open_source("digits"), out)


def test_a_resume_keeps_what_was_done(tmp_path):
    source, out = save_images(tmp_path / "in", 10), tmp_path / "out"
    whole = make_shards(source, tmp_path / "whole", rows_per_shard=2)
    bad = tmp_path / "in" / "b" / "008.png"
    good = bad.read_bytes()
    bad.write_bytes(b"broken")
    broken = open_source(str(tmp_path / "in"))
    with pytest.raises(UserError, match=r"008.png is not a readable image"):
        make_shards(broken, out, rows_per_shard=2)
    assert not (out / "manifest.json").exists()
    assert not (out / "shard-00004.parquet").exists()
    kept = inodes(out)
    assert sorted(kept) == [f"shard-{i:05d}.parquet" for i in range(4)]
    (out / WORK / "00002.json").unlink()  # killed between the shard and its note
    (out / ".shard-00004.parquet.1.part").write_bytes(b"killed while this was written")
    seen = []
    options = {"rows_per_shard": 2, "on_bad_image": "skip", "progress": lambda *at: seen.append(at)}
    skipped = make_shards(broken, out, **options)
    assert seen == [(3, 5), (4, 5), (5, 5)]
    assert skipped.skipped == 1
    assert (whole.class_counts, skipped.class_counts) == ((5, 5), (5, 4))
    assert {name for name, inode in inodes(out).items() if kept.get(name) == inode} == {
        f"shard-{i:05d}.parquet" for i in (0, 1, 3)
    }
    assert only_shards(out) == [shard.file for shard in skipped.shards]
    assert skipped.shards[:4] == whole.shards[:4]
    with pytest.raises(UserError, match="was made without 1 bad images; pass --on-bad-image skip"):
        make_shards(broken, out, rows_per_shard=2)
    bad.write_bytes(good)
    with pytest.raises(UserError, match="another source"):  # its images have changed
        make_shards(open_source(str(tmp_path / "in")), out, rows_per_shard=2)


def test_touched_files_cost_no_work(tmp_path):
    source, out = save_images(tmp_path / "in", 6, bad=[5]), tmp_path / "out"
    with pytest.raises(UserError, match=r"005.png is not a readable image"):
        make_shards(source, out, rows_per_shard=2)
    kept = inodes(out)
    assert kept
    for file in (tmp_path / "in").rglob("*.png"):
        file.touch()
    again = open_source(str(tmp_path / "in"))
    manifest = make_shards(again, out, rows_per_shard=2, on_bad_image="skip")
    assert kept.items() <= inodes(out).items()
    for file in (tmp_path / "in").rglob("*.png"):
        file.touch()
    assert make_shards(again, out, rows_per_shard=2, on_bad_image="skip") == manifest


def test_images_that_change_while_they_are_read_are_refused(tmp_path):
    source, out = save_images(tmp_path / "in", 4), tmp_path / "out"
    file = tmp_path / "in" / source.files[0]

    def change(done, total):
        file.write_bytes((tmp_path / "in" / source.files[-1]).read_bytes())

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
    manifest = make_shards(source, out, rows_per_shard=4, size=4)  # what the message proposes
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
        make_shards(source, tmp_path / "out", rows_per_shard=1, on_bad_image="skip")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(UserError, match="is not empty and holds no shards; choose another --out"):
            make_shards(open_source("digits"), tmp_path / name)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(UserError, match="--rows-per-shard is 0"):
        make_shards(open_source("digits"), tmp_path / "out", rows_per_shard=0)


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


def test_the_job(tmp_path, capsys):
    shards.run(Shards(source="digits", out=tmp_path / "out", size=16, rows_per_shard=1000))
    printed = capsys.readouterr()
    assert "1797 images of 16x16, 1 channels, 10 classes, 2 shards; fingerprint" in printed.out
    assert printed.err.splitlines() == ["shard 1 of 2", "shard 2 of 2"]
    with pytest.raises(UserError, match="did you mean 'digits'"):
        shards.run(Shards(source="digts", out=tmp_path / "no"))
    assert not (tmp_path / "no").exists()
