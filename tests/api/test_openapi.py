from __future__ import annotations

import json
from typing import Any

import aiohttp
import jsonschema_rs

from tests.api.conftest import Server, StartServer
from tests.api.described import DESCRIPTION, ask, find_misfit, resolve
from tests.conftest import picture_bytes
from umrgen_api.app import ROUTES
from umrgen_api.errors import HTTP_ERRORS
from umrgen_api.openapi.errors import schema_name
from umrgen_core.errors import MethodNotAllowed
from umrgen_core.requests import GenerateRequest, LoraChoice

GENERATE = "/api/v1/generate"
DESCRIBED = ("/api/v1/", "/references/", "/outputs/", "/healthz", "/readyz")
ANNOTATIONS = {"description", "default", "discriminator", "contentSchema"}
VOCABULARY = ANNOTATIONS | {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "oneOf", "$ref"),
    *("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "maxItems", "format"),
    *("contentMediaType",),
}
MANY = {"concurrent_jobs": 30, "rate_per_minute": 1000}


def test_every_endpoint_is_described_and_no_other() -> None:
    described = {(m.upper(), path) for path, item in DESCRIPTION["paths"].items() for m in item if m != "head"}
    assert described == {(method, path) for method, path, _ in ROUTES if path.startswith(DESCRIBED)}


def test_every_schema_is_one_and_says_nothing_that_readers_do_not_know() -> None:
    for name, schema in DESCRIPTION["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert find_words(schema) <= VOCABULARY, name


def find_words(value: Any) -> set[str]:
    """Every keyword in a schema; names of properties are none."""
    if isinstance(value, list):
        return set().union(*map(find_words, value))
    if not isinstance(value, dict):
        return set()
    parts = [list(part.values()) if word == "properties" else part for word, part in value.items()]
    return set(value).union(
        *(find_words(part) for part in parts if not isinstance(part, dict) or "mapping" not in part)
    )


def test_every_reference_leads_somewhere() -> None:
    seen = 0
    stack: list[Any] = [DESCRIPTION]
    while stack:
        value = stack.pop()
        if isinstance(value, dict) and isinstance(value.get("$ref"), str):
            assert resolve(value)
            seen += 1
        stack += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    assert seen > 200


def test_every_operation_has_a_name_of_its_own_and_a_description() -> None:
    operations = [operation for item in DESCRIPTION["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] and operation["description"] for operation in operations)


def test_the_request_is_described_as_it_is_validated_field_by_field() -> None:
    schema = DESCRIPTION["components"]["schemas"]["GenerateRequest"]
    assert set(schema["properties"]) == set(GenerateRequest.model_fields)
    assert all(field["description"] for field in schema["properties"].values())
    ends = {"width": (64, 2048), "height": (64, 2048), "steps": (1, 50), "seed": (-1, 2**53 - 1)}
    for name, (least, most) in ends.items():
        for value, fits in ((least, True), (most, True), (least - 1, False), (most + 1, False), (1.5, False)):
            body = {"prompt": "a star", name: value}
            assert (find_misfit({"$ref": "#/components/schemas/GenerateRequest"}, body) is None) == fits, body
    assert set(DESCRIPTION["components"]["schemas"]["LoraChoice"]["properties"]) == set(LoraChoice.model_fields)


def test_every_error_code_has_a_schema_an_example_and_an_endpoint() -> None:
    components = DESCRIPTION["components"]
    text = json.dumps(DESCRIPTION["paths"])
    for error, known in HTTP_ERRORS.items():
        example = components["examples"][error.code]["value"]
        assert (example["code"], example["error"]) == (error.code, known.error)
        assert find_misfit({"$ref": f"#/components/schemas/{schema_name(error)}"}, example) is None
        assert f"#/components/examples/{error.code}" in text or error is MethodNotAllowed


async def test_the_description_is_served_with_a_key_and_beside_the_page_without(server: Server) -> None:
    status, body, _ = await ask(server, "GET", "/api/v1/openapi.json")
    assert (status, body) == (200, DESCRIPTION)
    async with aiohttp.ClientSession(server.url) as stranger:
        async with stranger.get("/docs/openapi.json") as response:
            assert (response.status, await response.json()) == (200, DESCRIPTION)
        async with stranger.get("/api/v1/openapi.json") as response:
            assert response.status == 401


async def test_every_example_of_a_request_works(start_server: StartServer) -> None:
    server = await start_server(limits=MANY)
    filename = (await server.upload(picture_bytes()))[1]["filename"]
    operation = DESCRIPTION["paths"][GENERATE]["post"]
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        body = example["value"]
        if "reference_images" in body:
            body = {**body, "reference_images": [filename]}
        assert (await ask(server, "POST", GENERATE, json=body))[0] == 202
