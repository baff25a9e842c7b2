"""`serve`, `ask` and `key` as a person types them: output, errors, exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

import metabolism
from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store
from service.command import greet_first_key
from service.core import read_certificate
from service.security import KeyRing, Scope
from tests.conftest import DEMO_CORE

ROOT = Path(metabolism.__file__).parent


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("METABOLISM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    """A store that knows one capital."""
    file = tmp_path / "store.sqlite"
    with Store.open(file) as store:
        fact = Fact("Kenya", "capital", "Nairobi", "geography")
        store.commit(Change("geography", "merge", [FactChange(fact)]))
    return file


def run(*words: Any) -> Result:
    return CliRunner().invoke(metabolism.main, [str(word) for word in words])


# --- key -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_listed_and_revoked() -> None:
    made = run("key", "create", "--name", "ci", "--scope", "read,write", "--keys", "k.json")
    assert (made.exit_code, made.output[:3]) == (0, "dm-")
    listed = run("key", "list", "--keys", "k.json").output
    assert "ci" in listed
    assert "read,write" in listed
    assert made.output.strip() not in listed
    assert run("key", "revoke", "ci", "--keys", "k.json").exit_code == 0
    assert "revoked" in run("key", "list", "--keys", "k.json").output


def test_the_first_admin_key_is_shown_at_the_first_start_and_never_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    greet_first_key(KeyRing(tmp_path / "k.json"))
    token = capsys.readouterr().err.split()[-1]
    key = KeyRing(tmp_path / "k.json").find(token)
    assert key is not None
    assert key.scopes == {Scope.ADMIN}
    greet_first_key(KeyRing(tmp_path / "k.json"))
    assert capsys.readouterr().err == ""


def test_keys_speak_json() -> None:
    made = json.loads(run("key", "create", "--name", "ci", "--scope", "admin", "--keys", "k.json", "--json").stdout)
    assert made["scopes"] == ["admin"]
    assert made["key"].startswith("dm-")
    [listed] = json.loads(run("key", "list", "--keys", "k.json", "--json").stdout)["keys"]
    assert listed["name"] == "ci"
    assert "key" not in listed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["create", "--name", "x", "--scope", "dance"], 2, "infer, read, write, admin"),
        (["create", "--name", "x", "--scope", ","], 2, "at least one scope"),
        (["create", "--name", "x"], 2, "--scope"),
        (["revoke", "nobody"], 2, "no key in use"),
    ],
)
def test_a_wrong_key_command_says_what_to_do(words: list[str], code: int, message: str) -> None:
    done = run("key", *words)
    assert (done.exit_code, message in done.output) == (code, True), done.output


def test_an_unreadable_file_of_keys_is_something_outside() -> None:
    Path("k.json").write_text("{")
    done = run("key", "list", "--keys", "k.json")
    assert done.exit_code == 3
    assert "not a file of keys" in done.output


# --- serve, ask: what is wrong is told before anything slow is done. -------------------------------------------------


def test_a_store_that_is_no_database_is_left_as_it_is() -> None:
    Path("notes.sqlite").write_text("these are my notes " * 100)
    for command in (["serve", "--port", "0"], ["ask", "x"]):
        done = run(*command, "--core", DEMO_CORE, "--store", "notes.sqlite")
        assert done.exit_code == 3
        assert "not a knowledge store" in done.stderr
    assert Path("notes.sqlite").read_text().startswith("these are my notes")


def test_a_folder_without_a_tokenizer_is_no_core(store_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "core"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for command in (["serve", "--port", "0"], ["ask", "x"]):
        done = run(*command, "--core", folder, "--store", store_file)
        assert done.exit_code == 2
        assert "tokenizer.json" in done.stderr
    assert run("ask", "x", "--core", tmp_path / "none", "--store", store_file).exit_code == 2


def test_a_taken_port_is_told_at_once(store_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("serve", "--core", DEMO_CORE, "--store", store_file, "--port", taken.getsockname()[1])
    assert done.exit_code == 3
    assert "--port" in done.stderr
    assert "asks for no keys; only this machine can reach it" in done.stderr
    assert done.stdout == ""


def test_a_server_without_keys_is_never_open_to_the_world(store_file: Path) -> None:
    done = run("serve", "--host", "0.0.0.0", "--no-auth", "--store", store_file)
    assert done.exit_code == 2
    assert "loopback" in done.stderr


def test_wrong_questions_and_engines_are_wrong_use(store_file: Path) -> None:
    base = ["--core", DEMO_CORE, "--store", store_file]
    assert run("ask", "x", "--engine", "steam", *base).exit_code == 2
    assert run("ask", "x", "--log-level", "loud", *base).exit_code == 2
    assert run("ask", *base).exit_code == 2


def test_asking_where_nobody_listens_is_something_outside() -> None:
    done = run("ask", "x", "--url", "http://127.0.0.1:9", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["error"]["type"] == "ServerUnreachable"


# --- The real thing: the demo core on the embedded engine. -----------------------------------------------------------


@contextmanager
def served(*words: Any) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    command = [sys.executable, str(ROOT / "metabolism.py"), "serve", "--port", "0", "--engine", "embedded"]
    with subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " at http://" in line, line + (process.stderr.read() if process.stderr else "")
            yield line.split(" at ")[1].strip(), process
        finally:
            process.kill()


def test_the_demo_core_is_served_asked_swapped_and_stopped(store_file: Path) -> None:
    pytest.importorskip("torch")
    question = "What is the capital of Kenya?"
    with served("--core", DEMO_CORE, "--store", store_file, "--keys", "k.json") as (url, process):
        token = json.loads(
            run("key", "create", "--name", "ci", "--scope", "infer,write", "--keys", "k.json", "--json").stdout
        )["key"]
        assert run("ask", question, "--url", url).exit_code == 2  # no key
        traced = run("ask", question, "--url", url, "--key", token, "--trace").output
        assert "lookup Kenya | capital -> Nairobi" in traced
        assert "generation 1" in traced
        headers = {"Authorization": f"Bearer {token}"}
        body = {"module": "geography", "facts": [{"subject": "Kenya", "relation": "capital", "value": "Nakuru"}]}
        httpx.post(f"{url}/update_knowledge", json=body, headers=headers).raise_for_status()
        asked = json.loads(run("ask", question, "--url", url, "--key", token, "--json").stdout)
        assert (asked["answer"], asked["generation"], asked["grounded"]) == ("Nakuru", 2, True)
        long = httpx.post(f"{url}/v1/reason", json={"question": "word " * 9000}, headers=headers, timeout=60)
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait(20) in (0, -signal.SIGTERM, 143)
    assert errors.count("First admin key") == 1
    certificate = read_certificate(DEMO_CORE)
    assert certificate is not None
    assert certificate.passed is True, "what is shipped passes the gate"
    assert "demo-core passed its gate" in errors


def test_asking_needs_no_server(store_file: Path) -> None:
    pytest.importorskip("torch")
    done = run("ask", "What is the capital of Kenya?", "--core", DEMO_CORE, "--store", store_file, "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert (body["answer"], body["facts"][0]["subject"]) == ("Nairobi", "Kenya")
