"""Runs the app: takes the port first, says its address once it is ready, ends in good order.

Not here: what is served. Called by `metabolism serve` and by the tests.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from service.errors import PortTaken

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than clients and balancers hold an idle connection: whoever closes first must not be the one who is asked."""


def take_port(host: str, port: int) -> socket.socket:
    """Take the address before anything slow is done, so that a taken port is told at once.

    The socket does not listen yet: who asks a server that is not ready is refused at once, not left waiting. So two
    servers that start at the same time can both take an address; the one that is ready later is told then.

    Raises:
        PortTaken: another process listens there, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        raise _refuse(f"{host}:{port}", error) from error
    return taken


def _refuse(address: str, error: OSError) -> PortTaken:
    return PortTaken(f"cannot listen at {address}: {error.strerror or error}; choose another with --port")


def address_of(taken: socket.socket) -> str:
    """Give the URL of a taken port."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Uvicorn, saying when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so.

        Raises:
            PortTaken: another server took the address meanwhile. What the app holds is closed.
        """
        try:
            await super().startup(sockets)
        except OSError as error:
            await self.lifespan.shutdown()
            raise _refuse(" ".join(map(address_of, sockets or [])), error) from error
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as a wish to end, not to be raised again after a good end: the exit status is 0."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()


def make_server(app: FastAPI, *, ready: Callable[[], None], drain_s: float) -> uvicorn.Server:
    """Make a server of `app`; run it by ``await server.serve(sockets=[taken])``.

    It ends on SIGINT and SIGTERM, or when `should_exit` is set, and gives running answers `drain_s` to finish.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        backlog=_BACKLOG,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    return _Server(config, ready)
