"""Settings: three sources with the same names, and nothing unknown."""

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import DEFAULT_KEYS, Settings


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_options_win_over_variables_and_variables_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metabolism.toml"
    file.write_text("port = 1\nlookups = 2\ntokens = 3\n")
    monkeypatch.setenv("METABOLISM_PORT", "10")
    monkeypatch.setenv("METABOLISM_LOOKUPS", "20")
    read = Settings.read({"port": 100, "host": None}, file=file)
    assert (read.port, read.lookups, read.tokens, read.host) == (100, 20, 3, "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prot = 1", "--prot.*no such setting"),
        ("port = 'x'", r"--port \(METABOLISM_PORT\)"),
        ("port = 70000", "65535"),
        ("[", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_setting(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "metabolism.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=reason):
        Settings.read({}, file=file)


def test_a_missing_file_and_a_wrong_variable_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings.read({}, file=tmp_path / "none.toml")
    monkeypatch.setenv("METABOLISM_TIMEOUT_S", "-1")
    with pytest.raises(SettingsError, match="METABOLISM_TIMEOUT_S"):
        Settings.read({})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_a_loopback_server_asks_for_no_keys_unless_there_are_some(host: str) -> None:
    assert Settings.read({"host": host}).keys_file is None
    DEFAULT_KEYS.parent.mkdir()
    DEFAULT_KEYS.touch()
    assert Settings.read({"host": host}).keys_file == DEFAULT_KEYS
    assert Settings.read({"host": host, "no_auth": True}).keys_file is None


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.org"])
def test_any_other_server_always_asks_for_keys(host: str) -> None:
    assert Settings.read({"host": host}).keys_file == DEFAULT_KEYS
    with pytest.raises(SettingsError, match="loopback"):
        Settings.read({"host": host, "no_auth": True})


def test_no_auth_and_keys_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="exclude"):
        Settings.read({"no_auth": True, "keys": Path("k.json")})


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
