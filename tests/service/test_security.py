"""Keys: only hashes on disk, scopes, revocation seen by others at once."""

import json
import multiprocessing
from pathlib import Path

import pytest

from service.errors import KeyRefused, KeysUnusable
from service.security import KeyRing, Scope


def test_a_made_key_is_found_and_another_is_not(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    key, token = ring.create("ci", [Scope.READ, Scope.WRITE])
    found = ring.find(token)
    assert found == key
    assert found is not None
    assert found.allows(Scope.READ)
    assert not found.allows(Scope.INFER)
    assert ring.find(token + "x") is None
    assert ring.find("") is None
    assert ring.find("\ud800") is None


def test_admin_opens_everything(tmp_path: Path) -> None:
    key, _ = KeyRing(tmp_path / "keys.json").create("root", [Scope.ADMIN])
    assert all(key.allows(scope) for scope in Scope)


def test_the_file_holds_hashes_only_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "keys.json"
    key, token = KeyRing(file).create("ci", [Scope.READ])
    text = file.read_text()
    assert token not in text
    assert token.removeprefix("dm-") not in text
    assert key.digest in text
    assert file.stat().st_mode & 0o077 == 0


def test_a_revoked_key_is_lost_to_a_ring_that_is_open_elsewhere(tmp_path: Path) -> None:
    server, operator = KeyRing(tmp_path / "keys.json"), KeyRing(tmp_path / "keys.json")
    _, token = operator.create("ci", [Scope.READ])
    assert server.find(token) is not None
    operator.revoke("ci")
    assert server.find(token) is None
    assert [key.revoked is not None for key in server.all_keys()] == [True]


def test_a_name_is_free_again_after_its_key_was_revoked(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    ring.create("ci", [Scope.READ])
    with pytest.raises(KeyRefused, match="already"):
        ring.create("ci", [Scope.READ])
    ring.revoke("ci")
    ring.create("ci", [Scope.READ])
    with pytest.raises(KeyRefused, match="in use are: ci"):
        ring.revoke("nobody")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"keys": [{"name": "x"}]}'])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file)
    _, token = ring.create("ci", [Scope.READ])
    file.write_text(content)
    with pytest.raises(KeysUnusable, match="keys"):
        ring.find(token)
    with pytest.raises(KeysUnusable):
        ring.create("other", [Scope.READ])


def _create(file: Path, name: str) -> None:
    KeyRing(file).create(name, [Scope.READ])


def test_processes_that_make_keys_at_once_lose_none(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_create, args=(file, f"k{number}")) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert len(json.loads(file.read_text())["keys"]) == 6
