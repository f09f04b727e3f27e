"""The multipart form of an edit on its way in: images streamed to disk, fields read as the JSON they would be."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from multipart import MultipartError, MultipartSegment

from umrgen_api.access import agent_of
from umrgen_api.body import iterate_body, require_media_type
from umrgen_api.intake import FilePart, Upload, make_parser
from umrgen_api.openai.names import find_model
from umrgen_api.openai.order import CANNOT
from umrgen_api.rates import Rate
from umrgen_api.services import services_of
from umrgen_core.errors import FieldProblem, InvalidRequest, RequestTooLarge
from umrgen_core.profiles import MAX_REFERENCES

MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 * 1024
"""All fields together."""

_HINT = "send multipart/form-data with each image in a part 'image' or 'image[]' and the prompt in 'prompt'"
_IMAGE = re.compile(r"image(\[\d{0,2}\])?")
_WHOLE = re.compile(r"-?\d{1,16}")
_NUMBERS = {"n", "partial_images", "seed", "steps"}
_FLAGS = {"stream", "progress"}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Form:
    """Fields by name, and the images in order: where each lies and what arrived."""

    fields: dict[str, Any] = field(default_factory=dict)
    images: list[tuple[Path, Upload]] = field(default_factory=list)


async def receive_form(request: web.Request, stack: ExitStack) -> Form:
    """Read an edit's form; its images lie on disk for as long as `stack` is open.

    Each image counts as its own upload would, and is refused before it is on disk. Raises OpenAiError,
    UnsupportedMediaType, InvalidRequest, RateLimit, Unavailable, FileTooLarge, RequestTooLarge or RequestTimeout.
    """
    require_media_type(request, "multipart/form-data")
    parser = make_parser(request, MAX_REFERENCES + MAX_FIELDS, _HINT)
    receiver = _Receiver(request, stack)
    try:
        async for piece in iterate_body(request):
            for event in parser.parse(piece):
                await receiver.take(event)
        parser.close(check_complete=True)
    except (MultipartError, UnicodeError, ValueError) as error:
        raise InvalidRequest([FieldProblem("request", f"the multipart body is broken ({error}); {_HINT}")]) from None
    if not receiver.form.images:
        raise InvalidRequest([FieldProblem("image", f"is required; {_HINT}")])
    return receiver.form


class _Receiver:
    """Follows the parser's events."""

    def __init__(self, request: web.Request, stack: ExitStack) -> None:
        self._services = services_of(request)
        self._agent = agent_of(request)
        self._stack = stack
        self._name = ""
        self._text = bytearray()
        self._text_bytes = 0
        self._image: tuple[Path, FilePart] | None = None
        self.form = Form()

    async def take(self, event: MultipartSegment | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            await self._begin(event.name or "")
        elif event is None:
            self._end()
        elif self._image is not None:
            await self._image[1].write(bytes(event))
        else:
            self._add_text(event)

    async def _begin(self, name: str) -> None:
        self._name = name
        self._text.clear()
        if name in CANNOT:
            raise InvalidRequest([FieldProblem(name, CANNOT[name])])
        if _IMAGE.fullmatch(name):
            await self._begin_image()

    async def _begin_image(self) -> None:
        self._require_wanted()
        self._services.rates.take(self._agent, Rate.WRITE)
        await asyncio.to_thread(self._services.disk.require_room)
        target, path = self._stack.enter_context(self._services.files.incoming())
        self._image = path, FilePart(target)

    def _require_wanted(self) -> None:
        """Raise unless the model takes one more image, or any model while none has been named."""
        models, named = self._services.settings.served_models, self.form.fields.get("model")
        most = max(profile.references for profile in models.values())
        whose = "the models here take"
        if named is not None:
            most, whose = models[find_model(named, models, edits=True)].references, "this model takes"
        if len(self.form.images) >= most:
            raise InvalidRequest([FieldProblem("image", f"{whose} at most {most} references", most)])

    def _add_text(self, piece: bytearray) -> None:
        self._text_bytes += len(piece)
        if self._text_bytes > MAX_FIELD_BYTES:
            raise RequestTooLarge(
                f"The fields beside the images may have at most {MAX_FIELD_BYTES} bytes.",
                extra={"limit": MAX_FIELD_BYTES},
            )
        self._text += piece

    def _end(self) -> None:
        if self._image is not None:
            path, part = self._image
            self.form.images.append((path, part.finish()))
            self._image = None
        else:
            self.form.fields[self._name] = _read_value(self._name, self._text.decode())


def _read_value(name: str, text: str) -> Any:
    """What JSON would hold; what cannot be meant stays text and is refused with the other fields."""
    if name in _NUMBERS and _WHOLE.fullmatch(text):
        return int(text)
    return _TRUTH.get(text.lower(), text) if name in _FLAGS else text
