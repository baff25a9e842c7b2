"""The small programs that the images and the check are made of, run for real without a Docker engine."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.lookup import Found
from knowledge_store.protocol import ValueQuery
from knowledge_store.store import Store

ROOT = Path(__file__).resolve().parents[2]


def run(file: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the folder docker/ with this Python."""
    settings = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]} | environment
    command = [sys.executable, str(ROOT / "docker" / file), *arguments]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=60)


class Health(BaseHTTPRequestHandler):
    """Ready at /health/ready, and not at any other path."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/ready" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield str(server.server_port)
    server.shutdown()
    server.server_close()


def test_a_ready_server_is_healthy_and_one_that_answers_503_is_not(port: str) -> None:
    assert run("ready.py", METABOLISM_PORT=port).returncode == 0
    assert run("ready.py", METABOLISM_PORT=port, READY_PATH="/elsewhere").returncode == 1


def test_a_port_that_nobody_listens_on_is_not_healthy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert run("ready.py", METABOLISM_PORT=str(free.getsockname()[1])).returncode == 1


def capital(store: Store, country: str) -> str:
    with store.generation() as generation:
        outcome = generation.lookup(ValueQuery(country, "capital"))
    assert isinstance(outcome, Found)
    return outcome.text


def test_the_demo_facts_are_loaded_once_and_what_users_wrote_stays(tmp_path: Path) -> None:
    location = str(tmp_path / "knowledge.sqlite")
    first = run("seed.py", METABOLISM_STORE=location, SEED=str(ROOT / "knowledge"))
    assert first.returncode == 0, first.stderr
    with Store.open(location) as store:
        assert capital(store, "Kenya") == "Nairobi"
        swapped = FactChange(Fact("Kenya", "capital", "Mombasa", "geography"))
        store.commit(Change("geography", "merge", [swapped]))
    second = run("seed.py", METABOLISM_STORE=location, SEED=str(ROOT / "knowledge"))
    assert second.returncode == 0, second.stderr
    assert "left as it is" in second.stdout
    with Store.open(location) as store:
        assert capital(store, "Kenya") == "Mombasa"


def test_a_store_that_cannot_be_written_stops_the_start_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Sir or Madam, this is no database. " * 200)
    done = run("seed.py", METABOLISM_STORE=str(file), SEED=str(ROOT / "knowledge"))
    assert done.returncode == 3
    assert "not a knowledge store" in done.stderr


def test_the_scan_names_what_answers_and_only_that(port: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
        assert run("check/scan.py", f"127.0.0.1:{port}", closed).stdout.split() == [f"127.0.0.1:{port}"]


def test_listening_ports_are_found_and_loopback_ones_left_out(port: str) -> None:
    with socket.socket() as wide:
        wide.bind(("0.0.0.0", 0))
        wide.listen()
        found = run("check/listening.py").stdout.split()
        assert str(wide.getsockname()[1]) in found
        assert port not in found


def test_the_check_is_a_script_that_bash_can_read_with_a_function_for_each_part() -> None:
    script = ROOT / "docker" / "check.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    parts = text.split("PARTS=${*:-")[1].split("}")[0].split()
    assert all(f"part_{part}()" in text for part in parts)
