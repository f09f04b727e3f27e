"""What schemathesis cannot know: pictures to upload, and which refusals of well-formed requests are in order."""

from __future__ import annotations

import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import picture_bytes

MAY_REFUSE = {"reference_not_found", "safety_violation", "invalid_image", "idempotency_conflict"}
"""Codes that depend on what is kept or on what words mean: no schema says when."""
NAMES_OR_MODEL = {"model", "loras", "steps", "width", "reference_images", "callback_url", "cursor", "erase"}
"""Fields whose bounds depend on the model, or whose values must name something that is there."""

for image_format in ("png", "jpeg", "webp"):
    side = st.integers(64, 96)
    pictures = st.builds(picture_bytes, side, side, st.just(image_format.upper()), st.integers(0, 20))
    schemathesis.openapi.media_type(f"image/{image_format}", pictures)


@schemathesis.deserializer("image/png", "image/jpeg", "image/webp")
def read_picture(_: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """A whole file must be a picture; a part of one and an answer without a body cannot be looked at."""
    if response.status_code != 200 or response.request.method == "HEAD":
        return None
    with Image.open(io.BytesIO(response.content)) as image:
        image.load()
        return {"width": image.width, "height": image.height}


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Nothing is sent to hosts that schemathesis makes up."""
    if isinstance(body, dict) and str(body.get("callback_url")).startswith("http"):
        return {name: value for name, value in body.items() if name != "callback_url"}
    return body


@schemathesis.check
def only_what_no_schema_says_is_refused(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A well-formed request may be refused for what it names, never for its form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    body = response.json()
    fields = {problem["field"].partition("[")[0] for problem in body.get("errors", [])}
    assert body["code"] in MAY_REFUSE or (fields and fields <= NAMES_OR_MODEL), body
