"""Rates and places."""

import asyncio

import pytest

from service.errors import Busy, RateExceeded
from service.limit import Gate, KeyLimit


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_gets_its_minute_of_requests_and_then_one_by_one() -> None:
    clock = Clock()
    limit = KeyLimit(60, 10, clock=clock)
    for _ in range(60):
        with limit.running("a"):
            pass
    with pytest.raises(RateExceeded) as refused, limit.running("a"):
        pass
    assert refused.value.retry_after_s == 1
    clock.now_s += 1
    with limit.running("a"):
        pass
    with pytest.raises(RateExceeded), limit.running("a"):
        pass
    with limit.running("b"):
        pass


def test_a_key_of_its_own_rate_is_held_to_it() -> None:
    limit = KeyLimit(60, 10, clock=Clock())
    with limit.running("a", requests_per_minute=1):
        pass
    with pytest.raises(RateExceeded), limit.running("a", requests_per_minute=1):
        pass


def test_a_refused_request_is_not_counted_as_running() -> None:
    limit = KeyLimit(60, 1, clock=Clock())
    with limit.running("a"), pytest.raises(RateExceeded), limit.running("a"):
        pass
    with limit.running("a"):
        pass


async def test_the_gate_lets_in_in_order_and_turns_away_beyond_its_queue() -> None:
    gate = Gate(places=1, waiting=2, wait_s=5)
    order: list[int] = []

    async def enter(number: int) -> None:
        async with gate.place():
            order.append(number)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(enter(number)) for number in range(4)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2]
    assert isinstance(outcomes[3], Busy)
    assert (gate.running, gate.waiting) == (0, 0)


async def test_who_waits_too_long_is_turned_away_and_takes_no_place() -> None:
    gate = Gate(places=1, waiting=2, wait_s=0.02)
    async with gate.place():
        with pytest.raises(Busy, match="within"):
            async with gate.place():
                pass
    async with gate.place():
        assert gate.running == 1


async def test_who_gives_up_waiting_leaves_the_queue() -> None:
    gate = Gate(places=1, waiting=1, wait_s=5)

    async def enter() -> None:
        async with gate.place():
            pass

    async with gate.place():
        task = asyncio.create_task(enter())
        await asyncio.sleep(0.01)
        assert gate.waiting == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert gate.waiting == 0
    await enter()
