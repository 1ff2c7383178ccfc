"""The API's description: a valid OpenAPI 3.1 document that the running service keeps to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import jsonschema
import pytest
import requests
from hypothesis import HealthCheck, Phase
from starlette.applications import Starlette
from starlette.routing import Route

from sender.http import openapi
from sender.http.routes import CALLS
from shared.channels import parse_channel
from shared.events import parse_event
from tests.senders import Clock, run_sender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import Processes, SenderProcess

NOT_DESCRIBED = {"/", "/development/api-key"}  # for people and pages


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(CALLS)


def test_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    import schemathesis  # here: it takes half a second of each process that collects this file

    schemathesis.openapi.from_dict(document).validate()


def test_its_schemas_are_valid_json_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (value for name, value in node.items() if name == "$ref")
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


@pytest.mark.anyio
async def test_every_route_is_described_and_nothing_else(
    document: dict[str, Any], tmp_path: Any, redis_url: str, key_prefix: str
) -> None:
    async with run_sender(f"sqlite:///{tmp_path / 'o.db'}", redis_url, key_prefix) as sender:
        app = sender.client._transport.app  # type: ignore[attr-defined]
        assert isinstance(app, Starlette)
        served = {
            (route.path, method.lower())
            for route in app.routes
            if isinstance(route, Route) and route.path not in NOT_DESCRIBED
            for method in (route.methods or set()) - {"HEAD"}
        }
        answer = await sender.client.get("/openapi.json", headers={"Authorization": ""})
    assert served == {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert answer.json() == document


def test_cloud_events_that_the_description_allows_are_taken(document: dict[str, Any]) -> None:
    """Its example is accepted. That it allows no others is left to the parser."""
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "channel": "topic:menu",
        "data": None,
    }
    schemas = {"components": document["components"], **document["components"]["schemas"]["CloudEvent"]}
    jsonschema.Draft202012Validator(schemas).validate(event)
    assert parse_event(event, now=Clock().now).channel == parse_channel("topic:menu")
    for name in ("specversion", "id", "source", "type", "channel"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schemas).validate({k: v for k, v in event.items() if k != name})


@pytest.fixture
def sender(processes: Processes) -> SenderProcess:
    """A sender with something to find."""
    sender = processes.start_sender(redis_url="redis://127.0.0.1:1/0")
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(processes.api_headers)
        for order_id in ("1", "1042"):
            order = {"order_id": order_id, "customer_id": "alice", "data": {"items": ["Margherita"]}}
            assert session.post(f"{sender.url}/orders", json=order).status_code == 201
        assert session.post(f"{sender.url}/orders/1042/complete").status_code == 200
    return sender


@pytest.mark.parametrize("examples", [1, pytest.param(12, marks=pytest.mark.long)])
def test_running_service_does_what_the_document_says(
    sender: SenderProcess, processes: Processes, examples: int
) -> None:
    """Good and bad requests made from the document, the same ones in every run."""
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks, not_a_server_error

    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{sender.url}/openapi.json")
    checks: Any = [
        not_a_server_error,
        *(
            schemathesis.checks.CHECKS.get_one(name)
            for name in (
                "status_code_conformance",
                "content_type_conformance",
                "response_headers_conformance",
                "response_schema_conformance",
                "unsupported_method",
            )
        ),
    ]
    bounded = hypothesis.settings(
        max_examples=examples,  # of each operation and mode
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    statuses: set[int] = set()
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.exclude(path="/orders/changes").get_all_operations():  # its answer never ends
            operation: Any = found.ok()  # type: ignore[union-attr] # the document is valid: tested above
            has_input = operation.body or list(operation.iter_parameters())
            for mode in GenerationMode if has_input else [GenerationMode.POSITIVE]:

                @bounded
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def keeps_to_it(case: Any) -> None:
                    response = case.call(session=session, headers=processes.api_headers, timeout=10)
                    statuses.add(response.status_code)
                    case.validate_response(response, checks=checks)

                keeps_to_it()
    # One example of each call does not meet every refusal.
    assert {200, 201, 202, 400} | ({404, 415} if examples > 1 else set()) <= statuses
