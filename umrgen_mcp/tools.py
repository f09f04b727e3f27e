"""The tools that an agent sees. Each is one or two calls of the HTTP API with the caller's own key."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import Field

from umrgen_client import AsyncClient, AsyncJob, JobFailed, JobStatus, Picture, UmrgenError, WaitTimeout
from umrgen_client.uploads import find_name
from umrgen_mcp.callers import CallContext, Callers
from umrgen_mcp.preview import make_preview

NO_URL = (
    "image_url is a path of the service, since its owner has set no [api] public_url:"
    " put the service's address before it"
)
LATER = "The job goes on. Ask get_status for it later; its picture comes with the answer."

JobId = Annotated[str, Field(description="job_id of generate")]
References = Annotated[
    list[str], Field(description="filenames of upload_reference, or image_url of earlier pictures, in this order")
]
Loras = Annotated[dict[str, float], Field(description="names of list_models with their strengths, such as 0.8")]


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools over one service. `public_url` begins absolute URLs; empty where the owner has set none."""

    callers: Callers
    public_url: str

    async def generate(
        self,
        context: CallContext,
        prompt: Annotated[str, Field(description="what to paint, 1 to 2000 characters")],
        references: References = [],  # noqa: B006 - only read
        width: Annotated[int | None, Field(description="pixels, 64 to 2048; default 1024")] = None,
        height: Annotated[int | None, Field(description="pixels, 64 to 2048; default 1024")] = None,
        steps: Annotated[int | None, Field(description="default: the model's")] = None,
        seed: Annotated[int | None, Field(description="the same seed gives the same picture")] = None,
        negative: Annotated[str | None, Field(description="what not to paint, where the model heeds it")] = None,
        model: Annotated[str | None, Field(description="one of list_models; default: the first")] = None,
        loras: Loras = {},  # noqa: B006 - only read
        wait_s: Annotated[float, Field(description="seconds to wait for the picture", ge=0, le=3600)] = 300,
    ) -> CallToolResult:
        """Paint a picture from a prompt and, if wanted, reference images. Waits until it is finished.

        The answer holds a preview of at most 1 MB and the URL of the whole PNG. A job goes on when you hang up or its
        time is over: get_status finds it again.
        """
        require_names(references)
        with tool_errors(self.callers):
            client = self.callers.client_of(context)
            job = await client.generate(
                prompt,
                references=references,
                width=width,
                height=height,
                steps=steps,
                seed=seed,
                negative=negative,
                model=model,
                loras=loras,
            )
            try:
                job = await job.wait(wait_s, progress_of(context))
            except WaitTimeout as late:
                return answer(self._describe(late.job), LATER)
            return await self._show(client, job)

    async def upload_reference(
        self,
        context: CallContext,
        data: Annotated[str, Field(description="the file as base64, or a data: URL; at most 10 MB")],
    ) -> CallToolResult:
        """Keep a PNG, JPEG or WebP to generate with. Nothing is ever fetched from a URL; send the bytes."""
        with tool_errors(self.callers):
            reference = await self.callers.client_of(context).upload(decode_base64(data))
            return answer(dict(reference.raw), "Give filename to generate in references.")

    async def get_status(
        self,
        context: CallContext,
        job_id: JobId,
        preview: Annotated[bool, Field(description="false leaves out the picture of a completed job")] = True,
    ) -> CallToolResult:
        """How a job stands; its picture when it is completed."""
        with tool_errors(self.callers):
            client = self.callers.client_of(context)
            job = await client.status(job_id)
            if job.state == "completed" and preview:
                return await self._show(client, job)
            return answer(self._describe(job), "")

    async def cancel(self, context: CallContext, job_id: JobId) -> CallToolResult:
        """Cancel a job: at once when it is queued, before its next step when it runs."""
        with tool_errors(self.callers):
            return answer(self._describe(await self.callers.client_of(context).cancel(job_id)), "")

    async def list_models(self, context: CallContext) -> CallToolResult:
        """The models and their limits: steps, references, sizes, LoRAs; the default first."""
        with tool_errors(self.callers):
            models = await self.callers.client_of(context).models()
            return answer({"models": [dict(model.raw) for model in models]}, "")

    async def _show(self, client: AsyncClient, job: AsyncJob) -> CallToolResult:
        picture: Picture = await client.fetch(job)
        preview = await asyncio.to_thread(make_preview, picture.data)
        note = "" if preview.whole else "The picture shown is smaller than the one at image_url."
        shown = answer(self._describe(job), note)
        encoded = base64.b64encode(preview.data).decode()
        image: ContentBlock = ImageContent(type="image", data=encoded, mime_type=preview.mime_type)
        return shown.model_copy(update={"content": [image, *shown.content]})

    def _describe(self, job: JobStatus) -> dict[str, Any]:
        """The status with an absolute URL where there can be one."""
        status = {name: value for name, value in job.raw.items() if name != "success"}
        if job.image_url is None:
            return status
        if not self.public_url:
            return {**status, "note": NO_URL}
        return {**status, "image_url": self.public_url + job.image_url}


def answer(body: dict[str, Any], note: str) -> CallToolResult:
    """`body` as structured content and, for hosts that show text only, as text."""
    text = json.dumps(body, ensure_ascii=False, indent=1)
    blocks: list[ContentBlock] = [TextContent(type="text", text=f"{text}\n{note}".strip())]
    return CallToolResult(content=blocks, structured_content=body)


@contextmanager
def tool_errors(callers: Callers) -> Iterator[None]:
    """The service's own words as a tool error, which the model reads."""
    try:
        yield
    except UmrgenError as error:
        nearest = "".join(f"\n{one.field}: {one.nearest} would work" for one in error.fields if one.nearest is not None)
        wait = "" if error.retry_after is None else f" Try again in {error.retry_after:g} s."
        again = " The same again may work." if isinstance(error, JobFailed) and error.retryable else ""
        raise ToolError(f"{callers.explain(error)} (code: {error.code}){wait}{again}{nearest}") from None


def require_names(references: list[str]) -> None:
    """Raise ToolError for what is no name of the service: a path would be read on this server's own disk."""
    for reference in references:
        if find_name(reference) is None:
            raise ToolError(f"{reference!r} is no filename of an upload and no image_url (code: reference_not_found)")


def decode_base64(text: str) -> bytes:
    """The bytes of base64 or of a data: URL. Raises ToolError; an address is never fetched."""
    if text.startswith("data:"):
        header, _, text = text.partition(",")
        if not header.endswith(";base64"):
            raise ToolError("A data: URL must be in base64: data:image/png;base64,… (code: invalid_image)")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ToolError("data must be the file's bytes as base64; URLs are not fetched (code: invalid_image)") from None


def progress_of(context: CallContext) -> Callable[[AsyncJob], Awaitable[None]]:
    """Tell the caller of each change: steps done of all, and what is going on."""
    told, last = -1.0, ""

    async def tell(job: AsyncJob) -> None:
        nonlocal told, last
        step = job.steps if job.state == "completed" else job.progress.step if job.progress else 0
        message = describe_progress(job)
        if step <= told and message == last:
            return
        # The protocol wants every value to be above the one before; a change of words alone is a little more.
        told, last = max(float(step), told + 0.001), message
        await context.report_progress(told, float(job.steps), message)

    return tell


def describe_progress(job: JobStatus) -> str:
    """What goes on in a job, with its id so that it can be found again."""
    place = f", place {job.queue_position}" if job.state == "queued" and job.queue_position else ""
    left = "" if job.eta_s is None else f", about {job.eta_s:.0f} s left"
    return f"{job.id} {job.state}{place}{left}"
