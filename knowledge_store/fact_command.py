"""Commands on facts: import, export, list, lookup, history, diff. Imports wait until a command runs."""

import sys
from pathlib import Path
from typing import Any

import click

from knowledge_store.shell import open_store, show, subcommand


@subcommand("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--module", required=True, envvar="METABOLISM_MODULE", help="The module that the facts are for.")
@click.option(
    "--mode",
    type=click.Choice(["merge", "replace"]),
    default="merge",
    show_default=True,
    envvar="METABOLISM_MODE",
    help="Add to the module, or make it hold just these facts.",
)
@click.option("--format", "form", type=click.Choice(["ndjson", "csv", "parquet"]), help="Default: by the file's name.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--author", envvar="METABOLISM_AUTHOR", default="local", show_default=True, help="For the history.")
def import_facts(
    location: str, as_json: bool, file: Path, module: str, mode: Any, form: str | None, dry_run: bool, author: str
) -> None:
    """Import FILE (NDJSON, CSV or Parquet) into a module: all of it, or nothing."""
    from tqdm import tqdm

    from knowledge_store.change import Change
    from knowledge_store.exchange import FileFormat, read_changes

    chosen = FileFormat(form) if form else FileFormat.of(file)
    size = file.stat().st_size
    with (
        open_store(location) as store,
        file.open("rb") as stream,
        tqdm(total=size, unit="B", unit_scale=True, desc=file.name, disable=None, file=sys.stderr) as bar,
    ):

        def advance(count: int) -> None:
            bar.update(count)

        facts = read_changes(stream, chosen, module, progress=advance)
        report = store.commit(Change(module, mode, facts), author=author, dry_run=dry_run)
    verb = "would make" if dry_run else "made"
    show(
        report.document(),
        as_json,
        [
            *(conflict.text for conflict in report.conflicts),
            f"{module}: {report.added} added, {report.changed} changed, {report.deleted} deleted, "
            f"{report.unchanged} unchanged; {verb} generation {report.generation}"
            if report.anything
            else f"{module}: nothing to change in {report.unchanged} facts; generation {report.generation} stays",
        ],
    )


@subcommand("list")
def list_modules(location: str, as_json: bool) -> None:
    """List the modules in their order of precedence."""
    with open_store(location) as store:
        infos = store.modules()
        head = store.head
    lines = [
        f"{it.name:<24} {it.facts:>10,} facts  changed in generation {it.generation}, "
        f"{'mounted' if it.mounted else 'not mounted'}"
        for it in infos
    ]
    document = {"generation": head, "modules": [it.document() for it in infos]}
    show(document, as_json, [*lines, f"generation {head}, {len(infos)} modules"])


@subcommand("export")
@click.argument("module")
@click.option("--to", "target", type=click.Path(dir_okay=False, path_type=Path), help="A file; default: the output.")
@click.option("--format", "form", type=click.Choice(["ndjson", "csv", "parquet"]), help="Default: by the file's name.")
@click.option("--generation", "number", type=int, help="As it was in this generation.")
def export(
    location: str, as_json: bool, module: str, target: Path | None, form: str | None, number: int | None
) -> None:
    """Write a module's facts as NDJSON, CSV or Parquet; import reads them back."""
    from knowledge_store.exchange import FileFormat, write_facts

    chosen = FileFormat(form) if form else FileFormat.of(target) if target else FileFormat.NDJSON
    with open_store(location) as store, store.generation(number) as pinned:
        facts = pinned.every_fact(module)
        if target is None:
            write_facts(sys.stdout.buffer, chosen, facts)
            return
        draft = target.with_name(f"{target.name}.part")
        with draft.open("wb") as stream:
            count = write_facts(stream, chosen, facts)
        draft.replace(target)
        document = {"module": module, "generation": pinned.number, "facts": count, "file": str(target)}
    show(document, as_json, [f"{count:,} facts of {module}, generation {document['generation']}, in {target}"])


@subcommand("history")
@click.option("--module", help="Only this one.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
def history(location: str, as_json: bool, module: str | None, limit: int) -> None:
    """Say who changed what when, the newest first."""
    with open_store(location) as store:
        entries = store.history(module=module, limit=limit)
    lines = [
        f"{it.generation:>6}  {it.at[:19]}  {it.author:<12} {it.operation:<9} {it.module or '':<20} "
        f"+{it.added} ~{it.changed} -{it.deleted}  {it.detail}".rstrip()
        for it in entries
    ]
    show([it.document() for it in entries], as_json, lines)


@subcommand("diff")
@click.argument("module")
@click.argument("before", type=int)
@click.argument("after", type=int)
def diff(location: str, as_json: bool, module: str, before: int, after: int) -> None:
    """Show what differs in a module between the generations BEFORE and AFTER."""
    with open_store(location) as store, store.difference(module, before, after) as found:
        document = []
        for it in found:
            known = it.after or it.before
            assert known is not None, "a difference has a side"
            sides = {"before": it.before and it.before.document(), "after": it.after and it.after.document()}
            document.append(sides)
            if not as_json:
                sign = "+" if it.before is None else "-" if it.after is None else "~"
                values = " -> ".join(side.value for side in (it.before, it.after) if side is not None)
                click.echo(f"{sign} {known.subject} | {known.relation} | {values}")
    show(document, as_json, [f"{len(document)} differences"])


@subcommand("lookup")
@click.argument("query")
@click.option("--modules", help="Only these, comma-separated, in order of precedence.")
@click.option("--generation", "number", type=int, help="As it was in this generation.")
def look_up(location: str, as_json: bool, query: str, modules: str | None, number: int | None) -> None:
    """Ask the store as a core would: 'SUBJECT | RELATION', '? | RELATION | VALUE', 'SUBJECT | ?' or free text.

    Exits with 1 where there is no answer.
    """
    from knowledge_store.lookup import Found, outcome_document
    from knowledge_store.protocol import parse_query

    names = [name.strip() for name in modules.split(",")] if modules else None
    parsed = parse_query(query)
    with open_store(location) as store, store.generation(number, modules=names) as pinned:
        outcome = pinned.lookup(parsed)
        document = outcome_document(outcome) | {"generation": pinned.number}
    lines = [outcome.text]
    if document["match"]:
        lines.append(f"  {document['outcome']}, matched by {document['match']} ({document['score']:.2f})")
    lines += [
        f"  {label}{it['subject']} | {it['relation']} | {it['value']}  [{it['module']}, {it['fact_id'][:8]}]"
        for label, key in (("", "facts"), ("near: ", "suggestions"))
        for it in document[key]
    ]
    show(document, as_json, lines)
    if not isinstance(outcome, Found):
        sys.exit(1)
