"""A PostgreSQL server that ends every connection, as a restart does: one refusal at most, then service again."""

from contextlib import suppress

import psycopg
import pytest

from knowledge_store.change import Change, FactChange
from knowledge_store.errors import StoreUnavailable
from knowledge_store.fact import Fact
from knowledge_store.protocol import ValueQuery
from knowledge_store.store import Store
from tests.knowledge_store.conftest import new_database

pytestmark = pytest.mark.postgres


def write(store: Store, capital: str) -> None:
    store.commit(Change("geography", "merge", [FactChange(Fact("Kenya", "capital", capital, "geography"))]))


def read(store: Store) -> str:
    with store.generation() as generation:
        return generation.lookup(ValueQuery("Kenya", "capital")).text


def end_every_connection(location: str) -> None:
    with psycopg.connect(location, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_store_reads_and_writes_again_after_its_server_was_restarted(postgres_url: str) -> None:
    location = new_database(postgres_url)
    with Store.open(location) as store:
        write(store, "Nairobi")
        assert read(store) == "Nairobi"
        end_every_connection(location)
        with suppress(StoreUnavailable):
            read(store)
        assert read(store) == "Nairobi"
        end_every_connection(location)
        write(store, "Mombasa")
        with suppress(StoreUnavailable):
            read(store)
        assert read(store) == "Mombasa"
