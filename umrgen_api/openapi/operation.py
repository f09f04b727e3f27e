"""One endpoint and its answers, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umrgen_api.openapi.errors import describe_refusals
from umrgen_core import errors as e

Schema = dict[str, Any]
Refusals = tuple[type[e.UmrgenError], ...]

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer that is no refusal. `media` is None where there is no body."""

    description: str
    schema: Schema | None = None
    media: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    links: Mapping[str, Schema] | None = None
    example: object = None

    def as_json(self) -> Schema:
        """The response object."""
        names = (*self.headers, "X-Request-ID")
        described: Schema = {
            "description": self.description,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        }
        if self.schema is not None:
            content = {"schema": self.schema} | ({} if self.example is None else {"example": self.example})
            described["content"] = dict.fromkeys(self.media, content)
        return described | ({} if self.links is None else {"links": dict(self.links)})


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint. `security` names schemes, "" for none; None is the key that everything else needs."""

    name: str
    tag: str
    summary: str
    description: str
    replies: Mapping[int, Reply]
    refusals: Refusals
    parameters: tuple[str, ...] = ()
    body: Mapping[str, Schema] | None = None
    security: tuple[str, ...] | None = None
    also_head: bool = False

    def responses(self) -> Schema:
        """Every response, by status."""
        replies = {str(status): reply.as_json() for status, reply in self.replies.items()}
        return dict(sorted((replies | describe_refusals(self.refusals)).items()))
