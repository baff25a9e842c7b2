"""What is wrong in a YAML that cannot be used, said with the key that was meant. Called where a user's YAML is read."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain_all(model: type[BaseModel], error: ValidationError) -> list[str]:
    """Every problem of a file, a line each.

    A list whose items cannot be used counts as empty for pydantic; what follows from a deeper problem is left out.
    """
    problems = error.errors()
    places = [problem["loc"] for problem in problems]
    return [
        explain(model, place, problem["type"], problem["msg"])
        for place, problem in zip(places, problems, strict=True)
        if not any(len(other) > len(place) and other[: len(place)] == place for other in places)
    ]


def explain(model: type[BaseModel], place: tuple[int | str, ...], kind: str, message: str) -> str:
    """One problem that pydantic found in a file, and the key that was meant where one is unknown."""
    path = ".".join(map(str, place)) or "the file"
    if kind != "extra_forbidden":
        return f"{path}: {message.removeprefix('Value error, ')}"
    keys = _keys_at(model, place[:-1])
    under = [key for key in keys if place[-1] in _keys_at(model, (*place[:-1], key))]
    if under and place[-1] not in keys:
        return f"{path}: unknown key; it stands under {' or '.join(under)}"
    near = difflib.get_close_matches(str(place[-1]), keys, n=1, cutoff=0.5)
    return f"{path}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def _keys_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a place; numbers and the names of kinds lead no deeper."""
    models = [model]
    for part in place:
        fields = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        models = [found for field in fields for found in _models_in(field)] or models
    return sorted({key for one in models for key in one.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]
