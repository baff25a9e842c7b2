"""Stores for the tests: on SQLite always, on PostgreSQL wherever its server programs are."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge_store.store import Store
from tests.knowledge_store.postgres import find_programs, serve

BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of our own, or a loud skip."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not installed: apt-get install postgresql")
    with serve(programs) as url:
        yield url


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a new store may be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "sqlite":
        return str(tmp_path / "knowledge.sqlite")
    return new_database(request.getfixturevalue("postgres_url"))


def new_database(server: str, encoding: str = "UTF8") -> str:
    """Make an empty database on `server`."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    return f"{server}/{name}"


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    """A new store on each database."""
    with Store.open(location) as it:
        yield it
