"""Clients that ask again and again are made together, although they begin one by one."""

import asyncio

import pytest

from cm_ray.cluster.serving.turns import Turns


class Batches:
    """Closes a batch as soon as its first request is there, as Ray Serve does; one is worked on at a time."""

    def __init__(self, turns):
        self.turns, self.waiting, self.sizes = turns, [], []
        self.network = asyncio.Lock()

    async def ask(self):
        await self.turns.wait()
        done = asyncio.get_running_loop().create_future()
        self.waiting.append(done)
        if len(self.waiting) == 1:
            closing = asyncio.ensure_future(self.close())
            done.add_done_callback(lambda _: closing)
        await done

    async def close(self):
        await asyncio.sleep(0)
        batch, self.waiting = self.waiting, []
        async with self.network:
            with self.turns.working():
                await asyncio.sleep(0.02)
                self.sizes.append(len(batch))
        for done in batch:
            done.set_result(None)


def test_requests_that_come_during_the_work_are_one_batch():
    async def session():
        batches = Batches(Turns())

        async def client(number):
            await asyncio.sleep(0.005 * number)
            for _ in range(3):
                await batches.ask()

        await asyncio.gather(*map(client, range(4)))
        return batches.sizes

    sizes = asyncio.run(session())
    assert sum(sizes) == 12
    assert sizes[0] == 1, "the first one came alone"
    assert len(sizes) <= 8, f"one by one there would be 12 batches: {sizes}"
    assert max(sizes) >= 3


def test_a_failure_of_the_work_lets_the_next_ones_go():
    async def session():
        turns = Turns()
        with pytest.raises(RuntimeError), turns.working():
            raise RuntimeError
        await asyncio.wait_for(turns.wait(), 60)

    asyncio.run(session())
