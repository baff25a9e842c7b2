"""The trainer's README can be followed: each line of its full run is one that the program takes."""

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

import metabolism

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "trainer" / "README.md").read_text(encoding="utf-8")


def full_run() -> list[str]:
    """The command lines of the section, those broken by a backslash joined."""
    found = re.search(
        r"^## The full run of the demo core, on one GPU\n+```\n(.*?)^```", README, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return [line for line in re.sub(r"\\\n\s*", " ", found[1]).splitlines() if line.strip()]


def lay_out(words: list[str]) -> None:
    """Put something at each path that a command names, so that only what it is called with can be wrong."""
    for path in (Path(word) for word in words if "/" in word or word == "knowledge"):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("line", full_run())
def test_a_line_of_the_full_run_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(line, comments=True)
    for word in words:
        assert not word.endswith(".yaml") or (ROOT / word).is_file(), f"there is no {word}"
    monkeypatch.chdir(tmp_path)
    lay_out([*words, "knowledge"])  # the last is a default
    if program == "metabolism":
        name, *words = words
        command = metabolism.main.get_command(click.Context(metabolism.main), name)
        assert command is not None, f"there is no command {name}"
    else:
        assert (program, words[0]) == ("python", "-m")
        module = importlib.import_module(words[1])
        command, words = module.main, words[2:]
        if not isinstance(command, click.Command):
            module.parser().parse_args(words)
            return
    command.make_context(command.name, words)


def test_the_full_run_has_every_part_of_it() -> None:
    lines = "\n".join(full_run())
    gate = "--control runs/demo-control/base --facts knowledge --profile full --device cuda"
    parts = (
        "pretrain-demo",
        "pretrain-control",
        "erase.yaml",
        "core_targets",
        "leads.yaml",
        "qwen.yaml",
        "--shape qwen",
    )
    for part in (*parts, gate):
        assert part in re.sub(r" +", " ", lines), f"the full run lacks {part}"
