"""The shape of the commands under ``metabolism knowledge``: their common options, exit codes and output.

An entry point: it turns errors into exit codes (1 the answer is no, 2 wrong use, 3 something outside failed) and
values into text or, with ``--json``, into one JSON document on standard output. Not here: the commands
(``fact_command.py``, ``care_command.py``).
"""

import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from knowledge_store.store import Store

_P = ParamSpec("_P")
_R = TypeVar("_R")


@click.group()
def knowledge() -> None:
    """Fill, ask and look after the symbolic RAM."""


def subcommand(name: str) -> Callable[[Callable[_P, None]], click.Command]:
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
                show({"error": _describe_error(error)}, True, [])
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


def open_store(location: str) -> "Store":
    """Open the store that --store names."""
    from knowledge_store.store import Store

    return Store.open(location)


def show(document: Any, as_json: bool, lines: list[str]) -> None:
    """Print the document, or the lines for people."""
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)
