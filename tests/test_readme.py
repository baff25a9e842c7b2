"""The documents say what is: their tree, commands, options and links are held against the code."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import metabolism

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("trainer/*.md"), *ROOT.glob("models/*/*.md")]
)


def blocks(document: Path) -> list[str]:
    """The lines of a document's code blocks, those broken by a backslash joined."""
    found = re.findall(r"^```[^\n]*\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [line.strip() for block in found for line in re.sub(r"\\\n\s*", " ", block).splitlines()]


def commands(document: Path) -> list[list[str]]:
    """The `metabolism` command lines of a document, as words."""
    lines = [line.removeprefix("$ ") for line in blocks(document)]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("metabolism ")]


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = re.search(r"^## The tree\n```\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert tree is not None
    names = [line.split()[0] for line in tree[1].splitlines()]
    assert len(names) > 8
    for name in names:
        assert (ROOT / name).exists(), f"the README names {name}, which is not there"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in blocks(document):
        if line.removeprefix("$ ").startswith("make "):
            named = [word for word in shlex.split(line.removeprefix("$ "), comments=True)[1:] if word.islower()]
            assert set(named) <= targets, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_are_commands(document: Path) -> None:
    for words in commands(document):
        command: click.Command = metabolism.main
        context = click.Context(command)
        while isinstance(command, click.Group):
            name = words[0] if words else ""
            step = command.get_command(context, name)
            assert step is not None, f"there is no command «metabolism {' '.join(words)}»"
            command, words = step, words[1:]
            context = click.Context(command, parent=context, info_name=name)
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        named = {word.split("=")[0] for word in words if word.startswith("--")}
        assert named <= known | {"--help"}, f"{context.command_path} has no {named - known}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"


def test_every_benchmark_is_named_in_a_document() -> None:
    text = "\n".join(document.read_text("utf-8") for document in DOCUMENTS)
    for script in ROOT.glob("benchmarks/*.py"):
        if "__main__" in script.read_text("utf-8"):
            assert f"benchmarks/{script.name}" in text, f"no document tells of benchmarks/{script.name}"


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `make serve` starts, on a free port and a store of this test's own; its address."""
    folder = tmp_path_factory.mktemp("readme")
    store = folder / "knowledge.sqlite"
    program = str(Path(sys.executable).with_name("metabolism"))
    for module in ("geography", "elements", "companies", "people"):
        words = ["knowledge", "import", f"knowledge/{module}.ndjson", "--module", module, "--store", str(store)]
        subprocess.run([program, *words], cwd=ROOT, check=True, capture_output=True)
    words = ["serve", "--core", "models/demo-core", "--engine", "embedded", "--store", str(store), "--port", "0"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, (folder / "log").read_text()
        yield address[0]
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_the_quick_start_prints_what_the_readme_says(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    script = next(block for block in python_blocks(ROOT / "README.md") if "OpenAI(" in block)
    exec(compile(script.replace("http://127.0.0.1:8000", served), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Nairobi | " in printed
    assert printed in text


def test_the_facade_in_the_readme_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    script = next(block for block in python_blocks(ROOT / "README.md") if "DigitalMetabolismLLM" in block)
    exec(compile(script, "README.md", "exec"), {})
    assert capsys.readouterr().out == "Nairobi\n"
