"""The command group ``metabolism knowledge``: facts in and out, questions to the store, care for it.

An entry point: it turns errors into exit codes (1 the answer is no, 2 wrong use, 3 something outside failed) and
values into text or, with ``--json``, into one JSON document on standard output. Imports wait until a command runs.
"""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from knowledge_store.store import Store

_P = ParamSpec("_P")
_R = TypeVar("_R")


@click.group()
def knowledge() -> None:
    """Fill, ask and look after the symbolic RAM."""


def _command(name: str) -> Callable[[Callable[_P, None]], click.Command]:
    """Make a subcommand with the options that all have: --store and --json."""

    def decorate(function: Callable[_P, None]) -> click.Command:
        store = click.option(
            "--store",
            "location",
            envvar="METABOLISM_STORE",
            default="knowledge.sqlite",
            show_default=True,
            metavar="FILE_OR_URL",
            help="The store: a file, or postgresql://USER@HOST/NAME.",
        )
        as_json = click.option(
            "--json", "as_json", envvar="METABOLISM_JSON", is_flag=True, help="Print one JSON document."
        )
        return knowledge.command(name)(store(as_json(_with_exit_codes(function))))

    return decorate


def _with_exit_codes(function: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from knowledge_store.errors import Contradiction, KnowledgeError, PreconditionFailed, StoreUnavailable

        try:
            return function(*args, **kwargs)
        except KnowledgeError as error:
            if kwargs.get("as_json"):
                _print({"error": _describe_error(error)}, True, [])
            else:
                for line in _details(error):
                    click.echo(line, err=True)
            click.echo(f"Error: {error}", err=True)
            match error:
                case StoreUnavailable():
                    sys.exit(3)
                case Contradiction() | PreconditionFailed():
                    sys.exit(1)
                case _:
                    sys.exit(2)

    return run


def _describe_error(error: Exception) -> dict[str, Any]:
    from knowledge_store.errors import InvalidChange

    described: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, InvalidChange):
        described["problems"] = [{"line": it.line, "message": it.message} for it in error.problems]
    return described


def _details(error: Exception) -> list[str]:
    from knowledge_store.errors import Contradiction, InvalidChange

    if isinstance(error, InvalidChange):
        return [f"line {problem.line}: {problem.message}" for problem in error.problems]
    return [conflict.text for conflict in error.conflicts] if isinstance(error, Contradiction) else []


def _open(location: str) -> "Store":
    from knowledge_store.store import Store

    return Store.open(location)


def _print(document: Any, as_json: bool, lines: list[str]) -> None:
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)


@_command("import")
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
        _open(location) as store,
        file.open("rb") as stream,
        tqdm(total=size, unit="B", unit_scale=True, desc=file.name, disable=None, file=sys.stderr) as bar,
    ):

        def advance(count: int) -> None:
            bar.update(count)

        facts = read_changes(stream, chosen, module, progress=advance)
        report = store.commit(Change(module, mode, facts), author=author, dry_run=dry_run)
    verb = "would make" if dry_run else "made"
    _print(
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


@_command("list")
def list_modules(location: str, as_json: bool) -> None:
    """List the modules in their order of precedence."""
    with _open(location) as store:
        infos = store.modules()
        head = store.head
    lines = [
        f"{it.name:<24} {it.facts:>10,} facts  changed in generation {it.generation}, "
        f"{'mounted' if it.mounted else 'not mounted'}"
        for it in infos
    ]
    document = {"generation": head, "modules": [it.document() for it in infos]}
    _print(document, as_json, [*lines, f"generation {head}, {len(infos)} modules"])


@_command("lookup")
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
    with _open(location) as store, store.generation(number, modules=names) as pinned:
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
    _print(document, as_json, lines)
    if not isinstance(outcome, Found):
        sys.exit(1)
