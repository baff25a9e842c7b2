"""The port: taken before anything slow, refused to clients until the server is ready."""

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from knowledge_store.store import Store
from service import server
from service.api.app import create_app
from service.assembly import assemble
from service.codec import Codec
from service.errors import PortTaken
from service.settings import Settings
from tests.service.api.conftest import reciting_core


def test_who_asks_before_the_server_is_ready_is_refused_at_once() -> None:
    with server.take_port("127.0.0.1", 0) as taken, socket.socket() as client:
        client.settimeout(5)
        assert client.connect_ex(taken.getsockname()) == errno.ECONNREFUSED


def test_of_two_servers_that_start_at_a_time_the_later_one_is_told_and_closes_what_it_holds(
    tmp_path: Path, demo_codec: Codec
) -> None:
    store = Store.open(tmp_path / "store.sqlite")
    core = reciting_core(demo_codec, store)
    resources = assemble(Settings.read({"audit": tmp_path / "audit.jsonl"}), core, store, None)
    app = create_app(resources, version="test")
    with server.take_port("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with server.take_port("127.0.0.1", port) as second:
            first.listen()
            late = server.make_server(app, ready=lambda: pytest.fail("it is not ready"), drain_s=1)
            with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"):
                asyncio.run(late.serve(sockets=[second]))
    assert resources.serving.slot.current.engine.closed  # type: ignore[attr-defined]
