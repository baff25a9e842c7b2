"""Starts a PostgreSQL server for the tests, from the programs that Debian's package `postgresql` installs."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_programs() -> Path | None:
    """The folder of initdb and postgres, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders += [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    return next((it for it in folders if (it / "initdb").exists() and (it / "postgres").exists()), None)


@contextmanager
def serve(programs: Path) -> Iterator[str]:
    """Run a server in a folder of its own on 127.0.0.1; give its URL without a database."""
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder:
        user = None
        if os.geteuid() == 0:  # the server refuses to run as root
            user = next(name for name in ("postgres", "nobody") if _exists(name))
            shutil.chown(folder, user)
        data = Path(folder) / "data"
        run = {"user": user, "cwd": folder, "check": True, "capture_output": True}
        subprocess.run([programs / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"], **run)
        port = _free_port()
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=120"
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options.split()],
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=(Path(folder) / "log").open("w"),
        )
        try:
            _wait(port, server)
            yield f"postgresql://test@127.0.0.1:{port}"
        finally:
            server.send_signal(2)  # a fast shutdown
            server.wait(30)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    import time

    import psycopg

    for _ in range(300):
        assert server.poll() is None, "the PostgreSQL server ended at once"
        try:
            psycopg.connect(f"postgresql://test@127.0.0.1:{port}/postgres", connect_timeout=1).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the PostgreSQL server did not answer for 30 s")
