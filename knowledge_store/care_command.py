"""Commands on modules and the store itself, from mount to stats. Imports wait until a command runs."""

import sys
from pathlib import Path

import click

from knowledge_store.shell import open_store, show, subcommand


@subcommand("mount")
@click.argument("module")
@click.option("--precedence", type=int, help="Modules of a lower number win.")
def mount(location: str, as_json: bool, module: str, precedence: int | None) -> None:
    """Let lookups read a module."""
    with open_store(location) as store:
        info = store.mount(module, precedence=precedence)
    show(info.document(), as_json, [f"{module} is mounted, precedence {info.precedence}"])


@subcommand("unmount")
@click.argument("module")
def unmount(location: str, as_json: bool, module: str) -> None:
    """Let no lookup read a module; its facts stay."""
    with open_store(location) as store:
        info = store.unmount(module)
    show(info.document(), as_json, [f"{module} is not mounted"])


@subcommand("policy")
@click.argument("module")
@click.argument("policy", type=click.Choice(["reject", "newest", "keep"]))
def set_policy(location: str, as_json: bool, module: str, policy: str) -> None:
    """Choose what a module does with a second value of a relation that has one."""
    from knowledge_store.change import Policy

    with open_store(location) as store:
        info = store.set_policy(module, Policy(policy))
    show(info.document(), as_json, [f"{module}: {info.policy}"])


@subcommand("declare")
@click.argument("relation")
@click.option("--many", is_flag=True, help="A subject may have several values at a time.")
@click.option("--alias", "aliases", multiple=True, help="Another name of the relation; may be given several times.")
@click.option("--inverse", help="The name of the way back, as «capital of» is of «capital».")
def declare(
    location: str, as_json: bool, relation: str, many: bool, aliases: tuple[str, ...], inverse: str | None
) -> None:
    """Say what a relation is like; of what is not declared, a subject has one value."""
    from knowledge_store.declaration import Declaration

    with open_store(location) as store:
        number = store.declare(Declaration(relation, not many, aliases, inverse))
    show({"relation": relation, "generation": number}, as_json, [f"{relation} is declared; made generation {number}"])


@subcommand("drop")
@click.argument("module")
@click.option("--confirm", required=True, help="The module's name once more.")
def drop(location: str, as_json: bool, module: str, confirm: str) -> None:
    """Take a module out; earlier generations keep it."""
    if confirm != module:
        raise click.UsageError(f"to drop {module}, say --confirm {module}")
    with open_store(location) as store:
        number = store.drop_module(module)
    show({"module": module, "generation": number}, as_json, [f"{module} is dropped; made generation {number}"])


@subcommand("rollback")
@click.argument("module")
@click.option("--generation", "number", type=int, required=True, help="The generation to go back to.")
def rollback(location: str, as_json: bool, module: str, number: int) -> None:
    """Let a module hold again what it held in an earlier generation, as a new generation."""
    with open_store(location) as store:
        report = store.rollback(module, number)
    told = f"{report.added} added, {report.changed} changed, {report.deleted} deleted"
    show(report.document(), as_json, [f"{module} is as in generation {number}: {told}; generation {report.generation}"])


@subcommand("redact")
@click.argument("module")
@click.argument("subject")
@click.argument("relation")
@click.option("--value", default="", help="Only this value; default: every value.")
def redact(location: str, as_json: bool, module: str, subject: str, relation: str, value: str) -> None:
    """Erase a value from all history, for good."""
    from knowledge_store.fact import Fact

    with open_store(location) as store:
        count = store.redact(Fact(subject, relation, value, module))
        number = store.head
    show({"rows": count, "generation": number}, as_json, [f"{count} rows are gone; made generation {number}"])
    if not count:
        sys.exit(1)


@subcommand("compact")
@click.option("--older-than-days", type=click.FloatRange(0), default=30.0, show_default=True)
def compact(location: str, as_json: bool, older_than_days: float) -> None:
    """Drop generations that ceased to be the newest so long ago and that nobody reads."""
    from dataclasses import asdict
    from datetime import timedelta

    with open_store(location) as store:
        report = store.compact(timedelta(days=older_than_days))
    line = f"{report.facts:,} rows and {report.layers} layers are gone; the oldest generation is {report.oldest}"
    show(asdict(report), as_json, [line])


@subcommand("verify")
def verify(location: str, as_json: bool) -> None:
    """Compare everything with everything. Exits with 1 if anything is damaged."""
    from knowledge_store.care import verify as find_faults

    with open_store(location) as store:
        faults = find_faults(store)
    show({"ok": not faults, "faults": faults}, as_json, list(faults) or ["all is well"])
    if faults:
        sys.exit(1)


@subcommand("rebuild")
@click.option("--embedder", help="ngram-256, all-MiniLM-L6-v2, or a model of sentence-transformers.")
def rebuild(location: str, as_json: bool, embedder: str | None) -> None:
    """Make the index of vectors anew, by another embedder if one is named."""
    from dataclasses import asdict

    from knowledge_store.care import re_embed
    from knowledge_store.embed import embedder_named

    if embedder is not None:
        chosen = embedder_named(embedder)
        with open_store(location) as store:
            re_embed(store, chosen)
    with open_store(location) as store:
        manifest = store.indexer.rebuild()
    line = "there is nothing to index"
    if manifest is not None:
        how = "every one is compared" if manifest.exact else f"recall {manifest.recall:.3f}"
        line = f"{manifest.count:,} keys by {manifest.embedder}; {how}"
    show(manifest and asdict(manifest), as_json, [line])


@subcommand("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(location: str, as_json: bool, file: Path) -> None:
    """Copy the store into FILE, as of one moment, while others use it."""
    from knowledge_store.care import back_up

    with open_store(location) as store:
        back_up(store, file)
    show({"file": str(file), "bytes": file.stat().st_size}, as_json, [f"{file}: {file.stat().st_size:,} bytes"])


@subcommand("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(location: str, as_json: bool, file: Path) -> None:
    """Put the content of the backup FILE in place of the store's."""
    from knowledge_store.care import restore as put_back

    with open_store(location) as store:
        head = put_back(store, file)
    show({"generation": head}, as_json, [f"restored; the newest generation is {head}"])


@subcommand("stats")
def stats(location: str, as_json: bool) -> None:
    """Count what is in the store."""
    from knowledge_store.care import gather_statistics

    with open_store(location) as store:
        document = gather_statistics(store).document()
    show(document, as_json, [f"{key.replace('_', ' '):<20} {value}" for key, value in document.items()])
