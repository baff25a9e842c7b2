"""`DigitalMetabolismLLM`: a logic core and its knowledge modules as one object, in this process or on a server.

For notebooks, scripts and tests. In process it loads the core and runs it on an event loop in a thread of its own; with
a URL it is a thin coat over `Client`. The answers are the same typed values either way.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

from pydantic import ValidationError

from knowledge_store.change import Change, CommitReport, FactChange, Problem
from knowledge_store.errors import InvalidChange
from knowledge_store.exchange import FactRecord, FileFormat, describe, read_changes
from knowledge_store.fact import Fact
from knowledge_store.store import Store
from service.assembly import load_core
from service.client import Client
from service.detect.choice import Detectors
from service.errors import SettingsError
from service.inquiry import inquire
from service.settings import Settings
from service.trace import Answer

T = TypeVar("T")
NewFact = Fact | tuple[str, str, str] | Mapping[str, Any]
"""A fact; (subject, relation, value); or a mapping with the keys of an NDJSON line."""
KnowledgeModules = Sequence[str | Path] | Mapping[str, Iterable[NewFact]]


class _Backend(Protocol):
    def reason(self, query: str, modules: Sequence[str] | None, generation: int | None) -> Answer: ...

    def update(self, module: str, mode: Literal["merge", "replace"], facts: list[FactChange]) -> CommitReport: ...

    def close(self) -> None: ...


class DigitalMetabolismLLM:
    """A model whose facts can be swapped.

    >>> with DigitalMetabolismLLM("models/demo-core", ["knowledge/geography.ndjson"]) as llm:
    ...     llm.update_knowledge([("Kenya", "capital", "Nakuru")])
    ...     print(llm.reason("What is the capital of Kenya?").text)
    """

    def __init__(
        self,
        logic_core: str | Path,
        knowledge_modules: KnowledgeModules | None = None,
        *,
        store: str | Path | None = None,
        engine: str = "auto",
        detectors: Detectors | None = None,
        key: str | None = None,
    ) -> None:
        """Load or reach the core, and mount the modules.

        Args:
            logic_core: a core's folder, or the URL of a running service.
            knowledge_modules: files of facts to import, each a module of its name; or module names to facts; or names
                of modules that the store has. They are read in this order of precedence; None reads all.
            store: the store to use, in process only; without one a store of this object's own ends with it.
            engine: as `metabolism ask --engine`, in process only.
            detectors: which steps get a fact, in process only. «call», the default: those where the core asks; «claim»,
                «uncertainty» or «union» of both: besides those that state another value than the memory, or that the
                core is not sure of. They are for a model that still recalls facts.
            key: the key for the service at a URL.

        Raises:
            SettingsError: an argument does not go with a URL, or there are no such detectors.
            ServiceError, KnowledgeError: core, engine, store, service or a file of facts cannot be used.
        """
        remote = isinstance(logic_core, str) and logic_core.startswith(("http://", "https://"))
        if remote and store is not None:
            raise SettingsError("a service at a URL has its own store; leave `store` out")
        if remote and detectors is not None:
            raise SettingsError(
                "a service at a URL has its own detectors, `metabolism serve --detectors`; leave `detectors` out"
            )
        if detectors not in (None, *get_args(Detectors)):
            raise SettingsError(f"there are no detectors {detectors!r}; write {', '.join(get_args(Detectors))}")
        self._backend: _Backend = (
            _Remote(str(logic_core), key)
            if remote
            else _InProcess(Path(logic_core), engine, store, detectors or "call")
        )
        self._modules: tuple[str, ...] | None = None
        try:
            if knowledge_modules is not None:
                self._modules = tuple(self._mount(knowledge_modules))
        except BaseException:
            self.close()
            raise

    def reason(self, query: str, *, generation: int | None = None) -> Answer:
        """Answer a question from the mounted modules, with every step and fact.

        Raises:
            ServiceError, KnowledgeError: it cannot be asked, or nobody answers. A failure underway is in the answer.
        """
        return self._backend.reason(query, self._modules, generation)

    def update_knowledge(
        self,
        new_facts: Iterable[NewFact] | str | Path,
        *,
        module: str | None = None,
        mode: Literal["merge", "replace"] = "merge",
    ) -> CommitReport:
        """Change facts, all or none; the next question sees them. A path names a file of facts.

        Without `module` the facts go to the one that they name, or to the first of `knowledge_modules`.

        Raises:
            SettingsError: no module is named, or several are.
            InvalidChange: a fact is invalid; nothing was changed.
        """
        if isinstance(new_facts, (str, Path)):
            path = Path(new_facts)
            return self._backend.update(module or path.stem, mode, _read_file(path, module or path.stem))
        facts = list(new_facts)
        target = module or self._module_of(facts)
        return self._backend.update(target, mode, [_change(it, target, line) for line, it in enumerate(facts, 1)])

    def close(self) -> None:
        """Let go of core and store."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mount(self, modules: KnowledgeModules) -> Iterable[str]:
        if isinstance(modules, Mapping):
            for name, facts in modules.items():
                self.update_knowledge(facts, module=name)
                yield name
            return
        for it in modules:
            path = Path(it)
            if path.suffix and path.exists():
                self.update_knowledge(path)
                yield path.stem
            else:
                yield str(it)

    def _module_of(self, facts: Sequence[NewFact]) -> str:
        named = {it.module for it in facts if isinstance(it, Fact)}
        if len(named) == 1:
            return named.pop()
        if not named and self._modules:
            return self._modules[0]
        raise SettingsError("say which module the facts are for: update_knowledge(facts, module=…)")


class _Remote:
    def __init__(self, url: str, key: str | None) -> None:
        self._client = Client(url, key=key)

    def reason(self, query: str, modules: Sequence[str] | None, generation: int | None) -> Answer:
        return self._client.reason(query, modules=modules, generation=generation)

    def update(self, module: str, mode: Literal["merge", "replace"], facts: list[FactChange]) -> CommitReport:
        return self._client.update_knowledge([(it.fact, it.delete) for it in facts], module=module, mode=mode)

    def close(self) -> None:
        self._client.close()


class _InProcess:
    def __init__(self, folder: Path, engine: str, store: str | Path | None, detectors: Detectors) -> None:
        self._own = TemporaryDirectory(prefix="metabolism-") if store is None else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="metabolism", daemon=True)
        self._thread.start()
        self._settings = Settings.model_construct()
        self._store: Store | None = None
        try:
            self._store = Store.open(Path(self._own.name) / "store.sqlite" if self._own else store or "")
            self._core = self._run(load_core(folder, engine, self._store, detectors=detectors))
        except BaseException:
            self._end()
            raise

    def reason(self, query: str, modules: Sequence[str] | None, generation: int | None) -> Answer:
        question = inquire(self._settings, query, modules=modules, generation=generation)
        return self._run(self._core.orchestrator.answer(question))

    def update(self, module: str, mode: Literal["merge", "replace"], facts: list[FactChange]) -> CommitReport:
        assert self._store is not None, "open until closed"
        return self._store.commit(Change(module, mode, facts))

    def close(self) -> None:
        if not self._loop.is_closed():
            self._run(self._core.engine.close())
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._store is not None:
            self._store.close()
        if self._own is not None:
            self._own.cleanup()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _change(it: NewFact, module: str, line: int) -> FactChange:
    if isinstance(it, Fact):
        return FactChange(replace(it, module=module), line=line)
    if isinstance(it, Mapping):
        try:
            return FactRecord.model_validate(dict(it)).change(module, line)
        except ValidationError as error:
            raise InvalidChange((Problem(line, describe(error)),)) from error
    subject, relation, value = it
    return FactChange(Fact(subject, relation, value, module), line=line)


def _read_file(path: Path, module: str) -> list[FactChange]:
    try:
        with path.open("rb") as stream:
            read = list(read_changes(stream, FileFormat.of(path), module))
    except OSError as error:
        raise SettingsError(f"the file of facts {path} cannot be read: {error.strerror}") from error
    problems = tuple(it for it in read if isinstance(it, Problem))
    if problems:
        raise InvalidChange(problems)
    return [it for it in read if isinstance(it, FactChange)]
