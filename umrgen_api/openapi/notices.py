"""What the service tells of its own accord: events of a stream, and the POST to `callback_url` at a job's end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from umrgen_api.openapi.models import CancelledJob, CompletedJob, FailedJob, Time


class Webhook(BaseModel):
    """What is posted to `callback_url`."""

    type: Literal["job.completed", "job.failed", "job.cancelled"]
    timestamp: Time = Field(description="When the job ended.")
    data: Annotated[CompletedJob | FailedJob | CancelledJob, Field(discriminator="state")]


class Event(BaseModel):
    """One event of the stream, as a reader of server-sent events takes it apart."""

    id: str = Field(pattern=r"^\d+$", description="Send the last one seen as Last-Event-ID to resume.")
    event: Literal["state", "progress", "done"]
    data: str = Field(
        json_schema_extra={
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Status"},
        },
        description="The status as JSON.",
    )


WEBHOOK: dict[str, Any] = {
    "operationId": "job_ended",
    "tags": ["generate"],
    "summary": "A job has ended",
    "description": "Sent to the `callback_url` of a generate, at least once, signed as https://www.standardwebhooks.com"
    " says; tried again for a day until it is answered with 2xx. 410 ends the tries.",
    "security": [],
    "parameters": [
        {"name": name, "in": "header", "required": True, "description": description, "schema": {"type": "string"}}
        for name, description in (
            ("webhook-id", "The same at every try: know by it what you have seen."),
            ("webhook-timestamp", "When this try was made, in seconds since 1970."),
            ("webhook-signature", "`v1,` and the base64 HMAC-SHA256, once for each secret that counts."),
        )
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Webhook"}}},
    },
    "responses": {"2XX": {"description": "Heard."}},
}
