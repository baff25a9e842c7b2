"""A short soak, with the very script that runs the long one."""

import psutil

from benchmarks.soak import report, soak
from tests.service.api.conftest import StartServer


async def test_clients_that_ask_while_a_fact_is_swapped_see_whole_generations(start_server: StartServer) -> None:
    running = start_server(concurrent=8, waiting=16)
    ledger = await soak(
        running.url,
        clients=40,
        seconds=3,
        swap_every_s=0.05,
        process=psutil.Process(),
        question="Kenya | capital",
    )
    summary = report(ledger, 3)
    assert ledger.failures == []
    assert summary["updates"] > 2
    assert summary["generations_seen"] > 1
    assert summary["answers"] > 10
    assert set(ledger.statuses) <= {200, 503}
