"""Identities of sources: content decides, not sizes and times, and nothing is read in vain."""

import hashlib
import os
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm_ray.data.layouts import identity
from cm_ray.data.layouts.identity import digest_of_files
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError

TIME = (1_600_000_000, 1_600_000_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache in which nothing has been read."""
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read, in any order."""
    names, real = [], identity._content

    def content(root, name):
        names.append(name)
        return real(root, name)

    monkeypatch.setattr(identity, "_content", content)
    return names


def pixels(level):
    """Two images of one grey level."""
    return np.full((2, 4, 4, 3), level, np.uint8)


def as_folder(place, level):
    for index, image in enumerate(pixels(level)):
        file = place / "cat" / f"{index}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        os.utime(file, TIME)
    return place


def as_npz(place, level):
    np.savez(place / "x.npz", pixels(level))
    os.utime(place / "x.npz", TIME)
    return place / "x.npz"


def as_parquet(place, level):
    images = []
    for image in pixels(level):
        Image.fromarray(image).save(place / "one.bmp")
        images.append((place / "one.bmp").read_bytes())
    os.remove(place / "one.bmp")
    pq.write_table(pa.table({"image": images}), place / "x.parquet", compression="none", use_dictionary=False)
    os.utime(place / "x.parquet", TIME)
    return place / "x.parquet"


FORMS = [as_folder, as_npz, as_parquet]


def states(place):
    """Names, sizes and times of modification of all files."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def made(form, tmp_path, place, level):
    (tmp_path / place).mkdir(parents=True)
    return form(tmp_path / place, level)


@pytest.mark.parametrize("form", FORMS)
def test_equal_names_sizes_and_times_but_other_pixels(form, tmp_path):
    one, other, same = (
        made(form, tmp_path, f"{parent}/samples", level) for parent, level in (("a", 3), ("b", 9), ("c", 3))
    )
    assert states(one) == states(other) == states(same)
    found = [open_source(str(place)).identity() for place in (one, other, same)]
    assert found[0] != found[1]
    assert found[0] == found[2], "the same images in another place have the same shards"


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_overwritten_with_its_old_size_and_time(form, tmp_path):
    place = made(form, tmp_path, "x", 3)
    before, looks = open_source(str(place)).identity(), states(place)
    form(tmp_path / "x", 9)
    assert states(place) == looks
    assert open_source(str(place)).identity() != before
    form(tmp_path / "x", 3)
    assert open_source(str(place)).identity() == before


def test_a_folder_that_takes_the_place_of_another(tmp_path):
    one, other = made(as_folder, tmp_path, "a", 3), made(as_folder, tmp_path, "b", 9)
    before = open_source(str(one)).identity()
    shutil.move(one, tmp_path / "old")
    shutil.move(other, one)
    assert open_source(str(one)).identity() != before


@pytest.mark.parametrize("form", FORMS)
def test_files_are_read_once(form, tmp_path, reads):
    place = made(form, tmp_path, "x", 3)
    before = open_source(str(place)).identity()
    count = len(states(place))
    assert len(reads) == count
    assert open_source(str(place)).identity() == before
    assert len(reads) == count, "a second command reads nothing"
    (tmp_path / "y").mkdir()
    shutil.move(tmp_path / "x", tmp_path / "y" / "x")
    moved = tmp_path / "y" / "x" / place.relative_to(tmp_path / "x")
    assert open_source(str(moved)).identity() == before
    assert len(reads) == 2 * count, "moved files are read, and are the same"


def test_only_touched_and_new_files_are_read_again(tmp_path, reads):
    place = made(as_folder, tmp_path, "x", 3)
    before = open_source(str(place)).identity()
    os.utime(place / "cat" / "1.bmp")
    reads.clear()
    assert open_source(str(place)).identity() == before, "a touched file is the same file"
    assert reads == ["cat/1.bmp"]
    shutil.copy(place / "cat" / "1.bmp", place / "cat" / "2.bmp")
    reads.clear()
    after = open_source(str(place)).identity()
    assert (after != before, reads) == (True, ["cat/2.bmp"])
    (place / "cat" / "2.bmp").rename(place / "cat" / "3.bmp")
    assert open_source(str(place)).identity() not in (before, after), "names decide, too"


def test_a_change_within_one_step_of_the_clock_is_seen(tmp_path, monkeypatch):
    """Two changes within a step of the file system's clock look the same: the file is read after the step."""
    file, now = tmp_path / "x", time.time_ns()
    file.write_bytes(b"before")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        file.write_bytes(b"behind")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns + 5_000_000)
    wanted = hashlib.sha256(b"x\0" + hashlib.blake2b(b"behind", digest_size=16).digest()).hexdigest()
    assert digest_of_files(tmp_path, ["x"]) == wanted
    assert waits == [0.015]
    assert file.stat().st_ctime_ns >= now


@pytest.mark.parametrize(
    ("changed_ns", "now_ns", "wait_s"),
    [
        (1_500_000_000, 1_500_000_000, 0.02),
        (1_500_000_000, 1_600_000_000, 0),
        (3_000_000_000, 3_000_000_000, 2),  # whole seconds: a coarse clock
        (3_000_000_000, 4_500_000_000, 0.5),
        (9_500_000_000, 1_500_000_000, 0.02),  # the server's clock is ahead
    ],
)
def test_the_wait_for_a_step_of_the_clock(changed_ns, now_ns, wait_s, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    identity._wait_for_a_tick([1, changed_ns])
    assert waits == [wait_s]


def test_a_damaged_or_missing_index_only_costs_time(tmp_path, cache, reads):
    place = made(as_folder, tmp_path, "x", 3)
    before = open_source(str(place)).identity()
    (index,) = (cache / "identities").iterdir()
    for content in (b"", b"rubbish", index.read_bytes()[:-5]):
        index.write_bytes(content)
        reads.clear()
        assert open_source(str(place)).identity() == before
        assert len(reads) == 2
    shutil.rmtree(cache)
    cache.write_text("no folder can be made here")
    assert open_source(str(place)).identity() == before


def test_other_files_of_a_folder_are_not_forgotten(tmp_path, reads, monkeypatch):
    """Splits lie beside each other and are asked for in turn; states that nobody asks for do not pile up."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    for name in "abc":
        digest_of_files(tmp_path, [name])
    reads.clear()
    for name in "abc":
        digest_of_files(tmp_path, [name])
    assert not reads
    monkeypatch.setattr(identity, "_OLD_STATES", 1)
    (tmp_path / "d").write_text("d")
    digest_of_files(tmp_path, ["d"])
    assert list(identity._Index(tmp_path).known) == [identity._state(tmp_path, "d").key]


def test_progress_and_missing_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(10))
    seen = []
    digest_of_files(tmp_path, ["a", "b"], lambda *at: seen.append(at))
    assert seen == [(10, 20), (20, 20)]
    digest_of_files(tmp_path, ["a", "b"], lambda *at: seen.append(at))
    assert len(seen) == 2
    with pytest.raises(UserError, match=r"Could not read .*/c \(No such file or directory\); every machine"):
        digest_of_files(tmp_path, ["a", "c"])
