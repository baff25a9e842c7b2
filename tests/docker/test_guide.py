"""The deployment guide says what the code and the compose file say."""

import re
from pathlib import Path
from typing import Any

import pytest

from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
GUIDES = (ROOT / "docs/deployment.md", ROOT / "docs/scaling.md")


def settings_table() -> str:
    """The table of every setting, as the guide must have it."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{str(field.default).lower()}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    guide = GUIDES[0].read_text()
    written = guide.split("<!-- settings:")[1].split("|---|---|---|\n")[1].split("<!-- /settings -->")[0].strip()
    assert written == settings_table(), f"docs/deployment.md needs this table:\n{settings_table()}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_container_profile_and_file_that_a_guide_names_exists(guide: Path, compose: dict[str, Any]) -> None:
    text = guide.read_text()
    profiles = {profile for service in compose["services"].values() for profile in service["profiles"]}
    assert set(re.findall(r"--profile (\w+)", text)) <= profiles
    commands = re.findall(
        r"docker compose (?:--profile \w+ )*(?:restart|stop|logs|exec|run --rm(?: --no-deps)?) ([a-z][a-z-]*)", text
    )
    assert set(commands) <= compose["services"].keys()
    for file in re.findall(r"`((?:docker|benchmarks|requirements)/[\w./-]+)`", text):
        assert (ROOT / file).exists(), file


def test_the_scripts_of_the_check_are_all_named_in_it() -> None:
    script = (ROOT / "docker/check.sh").read_text() + (ROOT / "docker/check/Dockerfile").read_text()
    assert all(file.name in script for file in (ROOT / "docker/check").iterdir() if file.is_file())
