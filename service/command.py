"""The commands `metabolism serve`, `ask` and `key`: an entry point.

It reads settings, configures logging, turns errors into exit codes (1 the answer is no, 2 wrong use, 3 something
outside failed) and values into text or JSON. Heavy imports wait until a command needs them.
"""

import asyncio
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from service.security import Key, KeyRing
    from service.settings import Settings
    from service.trace import Answer

_P = ParamSpec("_P")
_R = TypeVar("_R")
_DEFAULT_KEYS = "var/keys.json"


def _with_exit_codes(function: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from knowledge_store.errors import KnowledgeError, StoreUnavailable
        from service.errors import ClientError, EngineUnavailable, KeysUnusable, PortTaken, ServerRefused, ServiceError

        outside = (StoreUnavailable, EngineUnavailable, KeysUnusable, PortTaken, ClientError)
        try:
            return function(*args, **kwargs)
        except (KnowledgeError, ServiceError) as error:
            if kwargs.get("as_json"):
                click.echo(json.dumps({"error": {"type": type(error).__name__, "message": str(error)}}))
            click.echo(f"Error: {error}", err=True)
            refused_here = isinstance(error, ServerRefused) and error.status < 500 and error.status != 429
            sys.exit(3 if isinstance(error, outside) and not refused_here else 2)

    return run


def _option(name: str, text: str, **more: Any) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make an option with its environment variable; left out, the settings file and the default decide."""
    variable = "METABOLISM_" + name.removeprefix("--").split("/")[0].replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, help=text, **more)


def _settings_options(function: Callable[_P, _R]) -> Callable[_P, _R]:
    for decorate in reversed(
        (
            _option("--core", "Folder of the core. [default: models/demo-core]", metavar="DIR"),
            _option("--engine", "auto, vllm, embedded, or a vLLM server's URL. [default: auto]", metavar="ENGINE"),
            _option("--store", "The knowledge store. [default: knowledge.sqlite]", metavar="FILE_OR_URL"),
            _option(
                "--detectors",
                "Which steps get a fact: call (where the core asks), or also claim, uncertainty, or union (both), for "
                "a model that still recalls. [default: call]",
                type=click.Choice(_DETECTORS),
            ),
            _option(
                "--settings",
                "A TOML file with these and more settings, under the same names.",
                type=click.Path(dir_okay=False, path_type=Path),
            ),
            _option("--log-level", "debug, info, warning or error.", type=click.Choice(_LEVELS)),
        )
    ):
        function = decorate(function)
    return function


_DETECTORS = ("call", "claim", "uncertainty", "union")
_LEVELS = ("debug", "info", "warning", "error")


_json_option = click.option(
    "--json", "as_json", envvar="METABOLISM_JSON", is_flag=True, help="Print one JSON document."
)


def _read_settings(given: dict[str, Any], *, default_level: str | None = None) -> "Settings":
    from service import log
    from service.settings import Settings

    file = given.pop("settings")
    settings = Settings.read(given, file=file)
    level: str = settings.log_level
    if default_level is not None and "log_level" not in settings.model_fields_set:
        level = default_level
    log.configure(level, settings.log_format)
    return settings


# --- serve ---------------------------------------------------------------------------------------------------------


@click.command()
@_option("--host", "Address to listen at. [default: 127.0.0.1]")
@_option("--port", "Port to listen at; 0 takes a free one. [default: 8000]", type=click.IntRange(0, 65535))
@_settings_options
@_option(
    "--keys",
    "File of keys; made, with a first admin key, where there is none. [default on other than loopback addresses: "
    f"{_DEFAULT_KEYS}]",
    type=click.Path(dir_okay=False, path_type=Path),
)
@_option("--no-auth", "Ask for no keys; only on a loopback address.", is_flag=True, default=None)
@_option("--audit", "File that gets a line for each write.", type=click.Path(dir_okay=False, path_type=Path))
@_with_exit_codes
def serve(**given: Any) -> None:
    """Serve the core and its memory over HTTP until interrupted.

    Prints one line with its address when it is ready. The API is described at /docs; every setting of the settings
    file has a variable METABOLISM_… too.
    """
    settings = _read_settings(given)
    keys_file = settings.keys_file
    if keys_file is None:
        click.echo("This server asks for no keys; only this machine can reach it.", err=True)
    asyncio.run(_serve(settings, keys_file))


async def _serve(settings: "Settings", keys_file: Path | None) -> None:
    from service import alu, server
    from service.api.app import create_app
    from service.assembly import assemble, load_core, open_store
    from service.security import KeyRing

    taken = server.take_port(settings.host, settings.port)
    try:
        keys = None if keys_file is None else KeyRing(keys_file)
        store = open_store(settings)
        core = await load_core(
            settings.core, settings.engine, store, detectors=settings.detectors, wait_s=settings.engine_wait_s
        )
        await asyncio.to_thread(alu.warm_up)
        resources = assemble(settings, core, store, keys)
        if keys is not None:
            greet_first_key(keys)
        click.echo(f"Engine: {core.engine_choice}", err=True)
        click.echo(core.statement, err=True)
        address = server.address_of(taken)

        def ready() -> None:
            click.echo(f"metabolism serves {core.name} at {address}")
            sys.stdout.flush()

        app = create_app(resources, version=_version())
        await server.make_server(app, ready=ready, drain_s=settings.drain_s).serve(sockets=[taken])
    finally:
        taken.close()


def greet_first_key(keys: "KeyRing") -> None:
    """Make a first admin key where there are no keys yet, and show it: the file keeps its hash only."""
    from service.security import Scope

    if keys.all_keys():
        return
    _, token = keys.create("first-admin", [Scope.ADMIN])
    click.echo(f"First admin key, shown only now: {token}", err=True)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("digital-metabolism")
    except PackageNotFoundError:
        return "0"


# --- ask -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("question")
@_settings_options
@_option("--url", "Ask the server that runs there, instead of loading the core here.", metavar="URL")
@_option("--key", "The key for that server.", metavar="KEY")
@_option("--modules", "Only these modules, comma-separated, in order of precedence.", metavar="NAMES")
@_option("--generation", "As the memory was in this generation.", type=click.IntRange(0))
@_option("--trace", "Show each step with its lookups.", is_flag=True)
@_json_option
@_with_exit_codes
def ask(question: str, as_json: bool, **given: Any) -> None:
    """Ask QUESTION and print the answer. Needs no server: the core is loaded here, unless --url names one.

    Exits with 1 where the answer could not be finished.
    """
    from service.api.schema import ReasonReply
    from service.show import show_trace

    url, key, trace = (given.pop(name) for name in ("url", "key", "trace"))
    modules, generation = given.pop("modules"), given.pop("generation")
    names = None if modules is None else [name.strip() for name in modules.split(",") if name.strip()]
    if url is None:
        settings = _read_settings(given, default_level="warning")
        answer = asyncio.run(_ask_here(settings, question, names, generation))
    else:
        from service.client import Client

        with Client(url, key=key) as client:
            answer = client.reason(question, modules=names, generation=generation)
    if as_json:
        click.echo(ReasonReply.of(answer).model_dump_json())
    else:
        click.echo(show_trace(answer) if trace else answer.text)
    if answer.error is not None:
        click.echo(f"Error: {answer.error}", err=True)
        sys.exit(1)


async def _ask_here(settings: "Settings", question: str, modules: list[str] | None, generation: int | None) -> "Answer":
    from service.assembly import opened
    from service.inquiry import inquire

    async with opened(settings) as core:
        asked = inquire(settings, question, modules=modules, generation=generation)
        return await core.orchestrator.answer(asked)


# --- key -----------------------------------------------------------------------------------------------------------


@click.group()
def key() -> None:
    """Make, list and revoke the keys of a server. A running server sees the change at once."""


_keys_option = click.option(
    "--keys",
    envvar="METABOLISM_KEYS",
    show_envvar=True,
    default=_DEFAULT_KEYS,
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of keys.",
)


@key.command("create")
@click.option("--name", required=True, envvar="METABOLISM_NAME", help="Who will use it; shown in logs and history.")
@click.option("--scope", required=True, envvar="METABOLISM_SCOPE", help="infer, read, write, admin: comma-separated.")
@_option("--requests-per-minute", "Its own rate, in place of the server's default.", type=click.IntRange(1))
@_option("--concurrent", "Its own number of requests at a time.", type=click.IntRange(1))
@_keys_option
@_json_option
@_with_exit_codes
def create_key(
    name: str, scope: str, requests_per_minute: int | None, concurrent: int | None, keys: Path, as_json: bool
) -> None:
    """Make a key and print it. It is shown only now; the file keeps its hash."""
    from service.security import KeyRing, Scope

    try:
        scopes = [Scope(part.strip()) for part in scope.split(",") if part.strip()]
    except ValueError as error:
        raise click.BadParameter(f"{scope!r}: scopes are {', '.join(Scope)}", param_hint="--scope") from error
    if not scopes:
        raise click.BadParameter("name at least one scope", param_hint="--scope")
    ring = KeyRing(keys)
    made, token = ring.create(name, scopes, requests_per_minute=requests_per_minute, concurrent=concurrent)
    click.echo(json.dumps({**_describe(made), "key": token}) if as_json else token)


@key.command("list")
@_keys_option
@_json_option
@_with_exit_codes
def list_keys(keys: Path, as_json: bool) -> None:
    """List all keys, revoked ones included, without the keys themselves."""
    from service.security import KeyRing

    described = [_describe(it) for it in KeyRing(keys).all_keys()]
    if as_json:
        click.echo(json.dumps({"keys": described}))
        return
    for it in described:
        state = f"revoked {it['revoked']}" if it["revoked"] else "in use"
        click.echo(f"{it['key_id']}  {it['name']:<24} {','.join(it['scopes']):<24} made {it['created']}  {state}")


@key.command("revoke")
@click.argument("name_or_id")
@_keys_option
@_json_option
@_with_exit_codes
def revoke_key(name_or_id: str, keys: Path, as_json: bool) -> None:
    """Make the key of this name or id useless from now on."""
    from service.security import KeyRing

    revoked = KeyRing(keys).revoke(name_or_id)
    click.echo(json.dumps(_describe(revoked)) if as_json else f"{revoked.name} ({revoked.key_id}) is revoked")


def _describe(it: "Key") -> dict[str, Any]:
    return {
        "key_id": it.key_id,
        "name": it.name,
        "scopes": sorted(scope.value for scope in it.scopes),
        "created": it.created.isoformat(timespec="seconds"),
        "revoked": None if it.revoked is None else it.revoked.isoformat(timespec="seconds"),
        "requests_per_minute": it.requests_per_minute,
        "concurrent": it.concurrent,
    }
