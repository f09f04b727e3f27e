"""Holds real answers to the OpenAPI description, and to nothing beyond it."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
from multidict import CIMultiDict

from tests.api.conftest import Server
from umrgen_api.openapi.document import describe_api

Answer = tuple[int, Any, dict[str, str]]
DESCRIPTION = describe_api()


def close(value: Any) -> Any:
    """Schemas that admit no field which they do not name."""
    if isinstance(value, list):
        return [close(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {name: close(part) for name, part in value.items()}
    return {"additionalProperties": False, **closed} if isinstance(value.get("properties"), dict) else closed


CLOSED = close(DESCRIPTION["components"])


def find_misfit(schema: dict[str, Any], value: Any) -> str | None:
    """What of `value` the schema does not say, or None."""
    validator = jsonschema_rs.Draft202012Validator({**close(schema), "components": CLOSED})
    return next((f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)), None)


def find_operation(method: str, path: str) -> dict[str, Any]:
    """The operation that answers `path`, which may have a query."""
    plain = path.partition("?")[0]
    for template, item in DESCRIPTION["paths"].items():
        if method.lower() in item and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), plain):
            operation: dict[str, Any] = item[method.lower()]
            return operation
    raise AssertionError(f"{method} {path} is not described")


def resolve(value: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    while "$ref" in value:
        found: Any = DESCRIPTION
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def hold(method: str, path: str, answer: Answer) -> Answer:
    """Fail unless the answer's status, headers and body are those of the description."""
    status, body, given = answer
    headers = CIMultiDict(given)
    responses = find_operation(method, path)["responses"]
    assert str(status) in responses, (method, path, status)
    response = responses[str(status)]
    for name, header in response["headers"].items():
        assert name in headers or not resolve(header)["required"], (method, path, status, name)
    assert all(name in headers for name in ("X-Request-ID", "Date"))
    content = response.get("content", {})
    if not content:
        assert not body
        return answer
    media_type = headers["Content-Type"].partition(";")[0]
    assert media_type in content, (method, path, status, media_type)
    if media_type != "application/json":
        assert body
        return answer
    misfit = find_misfit(content[media_type]["schema"], body)
    assert misfit is None, (method, path, status, misfit)
    return answer


async def ask(server: Server, method: str, path: str, **arguments: Any) -> Answer:
    """One request whose answer is held to the description."""
    async with server.session.request(method, path, **arguments) as response:
        json = response.content_type == "application/json" and method != "HEAD"
        body = await response.json() if json else await response.read()
        return hold(method, path, (response.status, body, dict(response.headers)))
