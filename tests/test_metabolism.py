"""The one command: quick to start, complete, and its groups imported only when they are used."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import metabolism

ROOT = Path(metabolism.__file__).parent


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-X", "importtime", str(ROOT / "metabolism.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_version_is_printed_and_is_one_json_document_on_demand() -> None:
    runner = CliRunner()
    assert "protocol 1" in runner.invoke(metabolism.main, ["version"]).output
    document = json.loads(runner.invoke(metabolism.main, ["version", "--json"]).output)
    assert set(document) == {"version", "protocol_version", "python"}


def test_help_names_every_command_without_importing_any() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in ("serve", "ask", "key", "knowledge", "train", "evaluate", "version"):
        assert f"\n  {name}" in done.stdout
    for package in ("service", "trainer", "knowledge_store", "torch", "fastapi"):
        assert f"| {package}\n" not in done.stderr


@pytest.mark.parametrize("words", [["knowledge", "list"], ["key", "list"], ["serve", "--help"]])
def test_light_commands_import_neither_web_framework_nor_torch(tmp_path: Path, words: list[str]) -> None:
    store = ["--store", str(tmp_path / "s.sqlite")] if words[0] == "knowledge" else []
    keys = ["--keys", str(tmp_path / "k.json")] if words[0] == "key" else []
    done = run(*words, *store, *keys)
    assert done.returncode == 0, done.stderr[-2000:]
    for package in ("fastapi", "torch", "transformers", "uvicorn"):
        assert not any(line.split("|")[-1].strip() == package for line in done.stderr.splitlines())


def test_the_command_starts_in_well_under_a_second() -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, str(ROOT / "metabolism.py"), "version"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 1


def test_an_unknown_command_is_wrong_use() -> None:
    assert CliRunner().invoke(metabolism.main, ["dance"]).exit_code == 2
