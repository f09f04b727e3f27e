"""The whole description, put together once."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from umrgen_api.openapi.errors import describe_errors, sample_errors
from umrgen_api.openapi.notices import WEBHOOK
from umrgen_api.openapi.operation import Operation
from umrgen_api.openapi.operations import OPERATIONS
from umrgen_api.openapi.parameters import HEADERS, PARAMETERS
from umrgen_api.openapi.schemas import describe_models

Schema = dict[str, Any]

CONTRACT_VERSION = "1"
"""Of the contract, not of the server: that is nobody's business."""
BEARER = "bearerAuth"
_TAGS: Mapping[str, str] = {
    "generate": "Ask for a picture and follow it.",
    "references": "Images to generate with.",
    "account": "What there is, and what of it is yours.",
    "files": "The images themselves.",
    "health": "For those who run the service.",
}
_INTRODUCTION = """\
An image service for agents. Submit a job with `POST /api/v1/generate`, wait for it with
`GET /api/v1/status/{job_id}?wait=60&until=done`, fetch the picture at its `image_url`.

Every error has the same shape: `error` and `code` are stable, `message` says what to do. Retryable ones add
`retry_after` in seconds. A path that is asked with another method answers 405 `method_not_allowed` and lists in
`Allow` those it takes. What belongs to another agent answers as if it did not exist.
"""


@functools.cache
def render_description() -> bytes:
    """The description as UTF-8 JSON."""
    return json.dumps(describe_api(), ensure_ascii=False, separators=(",", ":")).encode()


def describe_api() -> Schema:
    """The OpenAPI 3.1 document. It tells nothing of one server: models and limits are asked for with a key."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "UMRGEN", "version": CONTRACT_VERSION, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{BEARER: []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _describe_paths(),
        "webhooks": {"job_ended": {"post": WEBHOOK}},
        "components": {
            "securitySchemes": {BEARER: {"type": "http", "scheme": "bearer", "description": "Your API key."}},
            "parameters": dict(PARAMETERS),
            "headers": dict(HEADERS),
            "examples": sample_errors(),
            "schemas": describe_models() | describe_errors(),
        },
    }


def _describe_paths() -> Schema:
    paths: Schema = {}
    for (method, path), operation in OPERATIONS.items():
        item = paths.setdefault(path, {})
        item[method.lower()] = _describe_operation(operation)
        if operation.also_head:
            item["head"] = _without_content(item[method.lower()])
    return paths


def _describe_operation(operation: Operation) -> Schema:
    described: Schema = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in (*operation.parameters, "RequestId")],
        "responses": operation.responses(),
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": dict(operation.body)}
    if operation.security is not None:
        described["security"] = [{} if name == "" else {name: []} for name in operation.security]
    return described


def _without_content(get: Schema) -> Schema:
    responses = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in get["responses"].items()
    }
    return {**get, "operationId": f"{get['operationId']}_headers", "responses": responses}
