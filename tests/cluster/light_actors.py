"""Actors without PyTorch, which start in a moment, and die as they are told."""

import os

import ray


class Worker:
    """An actor without PyTorch, so that it starts in a moment."""

    def started(self):
        return ray.get_runtime_context().get_node_id()

    def double(self, number, bytes_of_result=8):
        return number * 2, bytes(bytes_of_result)

    def die_of(self, number, deadly):
        if number in deadly:
            os._exit(7)
        return self.double(number)

    def die_in_turn(self, number, folder):
        """Die once in each task."""
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return self.double(number)
        os._exit(7)

    def pid(self):
        return os.getpid()


class Broken(Worker):
    def __init__(self):
        import module_that_is_not_there  # noqa: F401


class OftenBroken(Worker):
    """An actor that can only start once in a folder, as on a cluster with one node that works."""

    def __init__(self, folder):
        (folder / "taken").touch(exist_ok=False)
