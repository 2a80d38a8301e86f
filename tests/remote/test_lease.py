"""A lease gives an address to one process; who held it before writes nothing more."""

import threading

import pytest

import cm_ray as cm
from cm_ray.remote import lease as lease_module
from cm_ray.remote.lease import LEASE, leased
from cm_ray.remote.objects import Objects
from cm_ray.remote.writer import Writer


@pytest.fixture
def objects(store, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_S", 2.0)
    return Objects(f"{store.bucket()}/run")


def abandoned(objects):
    """Return the token of a holder that died: its lease is not renewed and not released."""
    said = []
    held = lease_module._acquired(objects, said.append)
    held._ended.set()
    held._thread.join()
    return held.token


def test_a_held_address_is_refused_and_a_released_one_is_free(objects):
    said = []
    with leased(objects, said.append) as lease:
        lease.token.check(objects)
        with (
            pytest.raises(cm.UserError, match=r"Another process is working in s3://.* \(.*process \d+\)"),
            leased(Objects(objects.address), said.append),
        ):
            pass
        lease.token.check(objects)
    assert len(said) == 1
    with pytest.raises(cm.UserError, match="belongs to another command now"):
        lease.token.check(objects)
    with leased(objects, said.append) as again:
        assert again.token.epoch == lease.token.epoch + 1
    assert len(said) == 1


def test_the_lease_of_a_dead_holder_ends_and_its_writers_cannot_write(objects):
    orphan = Writer(objects, abandoned(objects))
    orphan.put("log", b"one")
    with leased(objects, lambda text: None) as lease:
        heir = Writer(Objects(objects.address), lease.token)
        heir.sees(objects.list())
        with pytest.raises(cm.UserError, match="belongs to another command now"):
            orphan.put("log", b"stale")
        with pytest.raises(cm.UserError, match="belongs to another command now"):
            orphan.remove("log")
        heir.put("log", b"two")
    assert objects.read("log")[0] == b"two"


def test_a_write_that_was_on_its_way_when_the_lease_passed_on_does_not_stay(objects, store):
    """The orphan has looked at the lease; its write arrives after the heir has read what there is."""
    orphan = Writer(objects, abandoned(objects))
    orphan.put("log", b"one")
    on_its_way, arrives = threading.Event(), threading.Event()

    def late(method, path):
        if method == "PUT" and path.endswith("/log") and not on_its_way.is_set():
            on_its_way.set()
            arrives.wait(60)

    with store.faults(late):
        writing = threading.Thread(target=orphan.put, args=("log", b"stale"))
        writing.start()
        on_its_way.wait(60)
        with leased(objects, lambda text: None) as lease:
            heir = Writer(Objects(objects.address), lease.token)
            heir.sees(objects.list())
            arrives.set()
            writing.join()
            assert objects.read("log")[0] == b"stale"
            heir.put("log", b"two")
    assert objects.read("log")[0] == b"two"


def test_a_new_epoch_ends_the_rights_of_the_one_before(objects):
    with leased(objects, lambda text: None) as lease:
        first = lease.token
        second = lease.next_epoch()
        second.check(objects)
        with pytest.raises(cm.UserError, match="belongs to another command now"):
            first.check(objects)


def test_a_holder_that_is_too_slow_finds_out(objects):
    slow = lease_module._acquired(objects, print)
    slow._ended.set()
    slow._thread.join()
    with (
        leased(objects, lambda text: None),
        pytest.raises(cm.UserError, match="belongs to another command now"),
    ):
        slow._write()


def test_of_two_that_begin_together_one_works(objects):
    began, refused, barrier = [], [], threading.Barrier(4)

    def begin():
        mine = Objects(objects.address)
        barrier.wait()
        try:
            with leased(mine, lambda text: None) as lease:
                began.append(lease.token.epoch)
                barrier.wait()
        except cm.UserError:
            refused.append(1)
            barrier.wait()

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(began) == 1
    assert len(refused) == 3


def test_a_damaged_lease_is_a_sentence(objects):
    objects.create(LEASE, b'{"epoch": "1"}')
    with pytest.raises(cm.UserError, match="is not as cm_ray writes it"), leased(objects, print):
        pass
