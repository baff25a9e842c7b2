"""The Dockerfiles: what the linter says, and what every image of ours must be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
IMAGES = ("service", "embedded", "engine", "trainer")


def stages() -> dict[str, tuple[str, str]]:
    """Each stage's name, with the stage that it starts from and its text."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return {name: (parent, text) for parent, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


def lineage(name: str) -> str:
    """The text of a stage and of all that it starts from, oldest first."""
    text = ""
    while name in stages():
        name, own = stages()[name]
        text = own + text
    return text


@pytest.mark.parametrize("file", ["docker/Dockerfile", "docker/check/Dockerfile"])
def test_the_linter_finds_nothing_in(file: str) -> None:
    command = [Path(sys.executable).parent / "hadolint", "--config", "docker/hadolint.yaml", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_numbered_user_has_a_health_check_and_labels(image: str) -> None:
    text = lineage(image)
    assert re.findall(r"^USER (\S+)$", text, flags=re.MULTILINE)[-1] == "10001"
    assert re.search(r"^HEALTHCHECK ", text, flags=re.MULTILINE)
    assert f'org.opencontainers.image.title="digital-metabolism-{image}' in text
    assert "org.opencontainers.image.description=" in text


def test_what_the_images_copy_is_let_through_by_the_ignore_file_and_nothing_else_is() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)
    for source in copied:
        assert source in let_through or any(it.startswith(f"{source}/") for it in let_through), source
    for allowed in let_through - {"docker/check/database.sh"}:
        assert allowed in copied or allowed.partition("/")[0] in copied, f"{allowed} is in no image"


def test_no_image_holds_a_secret_or_a_model_but_the_demo_core() -> None:
    assert re.findall(r"models/\S+", (ROOT / ".dockerignore").read_text()) == ["models/demo-core"]
    assert not re.search(r"(?i)password|secret|token=", DOCKERFILE)


def packages(file: str) -> set[str]:
    """The names in a requirements file, as pip compares them."""
    lines = (ROOT / file).read_text().splitlines()
    return {re.split("[=<>~]", line)[0].lower().replace("_", "-") for line in lines if line and line[0] != "#"}


def test_every_package_that_the_engine_asks_for_is_pinned() -> None:
    assert packages("docker/engine.txt") <= packages("requirements/constraints.txt")
