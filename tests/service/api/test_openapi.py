"""The OpenAPI document holds what it promises: Schemathesis makes requests of it and checks the answers against it.

Bounded here: some requests of each route, the same each time.
"""

from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.codec import Codec
from tests.service.api.conftest import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
]
EXAMPLES = 4
QUIET: dict[str, Any] = {
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def test_the_server_answers_as_its_document_says(tmp_path: Path, demo_codec: Codec) -> None:
    with serving(tmp_path, demo_codec) as running:
        document = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        narrow_facts(document.raw_schema)
        operations = [result.ok() for result in document.get_all_operations()]
        failures = [failure for operation in operations for failure in fuzz(operation, EXAMPLES)]
    assert len(operations) >= 18
    assert not failures, "\n\n".join(failures)


def narrow_facts(document: dict[str, Any]) -> None:
    """Keep made-up facts clear of what JSON Schema cannot say: which Unicode is blank, and which date is earlier."""
    body = document["paths"]["/update_knowledge"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fact = body["properties"]["facts"]["items"]
    letter = {"pattern": r"^[^\x00]*[A-Za-z0-9][^\x00]*$"}
    fields = fact["properties"]
    for field in (fields["subject"], fields["relation"], fields["source"]["anyOf"][0], fields["aliases"]["items"]):
        field |= letter
    fact["allOf"][0]["anyOf"][0]["properties"]["value"] |= letter
    fact["allOf"].append({"anyOf": [{"properties": {name: {"type": "null"}}} for name in ("valid_from", "valid_to")]})


def fuzz(operation: APIOperation, examples: int) -> list[str]:
    """Make this many requests of an operation, half of them wrong; give the first answer that breaks its promise."""
    failures = []
    for mode in GenerationMode:

        @settings(max_examples=examples, deadline=None, derandomize=True, database=None, **QUIET)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        try:
            check()
        except Unsatisfiable:
            continue  # an operation without parameters cannot be asked wrongly
        except (FailureGroup, Failure) as error:
            failures.append(f"{operation.label} ({mode.value}): {error}\n{getattr(error, 'exceptions', '')}")
    return failures
