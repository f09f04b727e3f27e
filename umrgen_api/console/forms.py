"""Forms of the console on their way in: small ones whole, the one with pictures streamed to disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from aiohttp import web
from multipart import MultipartError, MultipartSegment

from umrgen_api.body import MAX_JSON_BYTES, iterate_body, require_media_type
from umrgen_api.intake import FilePart, Upload, make_parser
from umrgen_api.services import services_of
from umrgen_core.errors import FieldProblem, Forbidden, InvalidRequest, RequestError, RequestTooLarge
from umrgen_core.profiles import MAX_REFERENCES

MAX_FIELDS = 128
MAX_PASSED_BYTES = 256 * 1024 * 1024
"""Of files that are read past, to get at the fields behind them."""
_HINT = "reload the page and send its form again"


async def read_fields(request: web.Request) -> dict[str, str]:
    """The fields of a small form; of a field that comes twice the last. Raises what reading a body raises."""
    require_media_type(request, "application/x-www-form-urlencoded")
    body = bytearray()
    async for piece in iterate_body(request):
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise _too_large()
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError:
        raise InvalidRequest([FieldProblem("form", f"cannot be read; {_HINT}")]) from None


@dataclass(slots=True)
class PictureForm:
    """A form with pictures: its fields in order, and the files with what arrived of each. Filled as it arrives."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[Path, Upload]] = field(default_factory=list)
    refusal: RequestError | None = None
    """Why a file was not taken in, nor those after it. The fields are all there, so that nobody types them again."""

    def value(self, name: str) -> str:
        """The first field of this name; empty when there is none."""
        return next((text for key, text in self.fields if key == name), "")


async def receive_pictures(
    request: web.Request, stack: ExitStack, before_file: Callable[[PictureForm], None]
) -> PictureForm:
    """Read a form; its files lie on disk for as long as `stack` is open.

    `before_file` is asked before each file is taken in, and raises to refuse it: Forbidden refuses the whole form,
    anything else is noted in it. An empty choice of files is none.
    """
    require_media_type(request, "multipart/form-data")
    parser = make_parser(request, MAX_REFERENCES + MAX_FIELDS, _HINT)
    receiver = _Receiver(request, stack, before_file)
    try:
        async for piece in iterate_body(request):
            for event in parser.parse(piece):
                await receiver.take(event)
        parser.close(check_complete=True)
    except (MultipartError, UnicodeError, ValueError):
        raise InvalidRequest([FieldProblem("form", f"cannot be read; {_HINT}")]) from None
    return receiver.form


class _Receiver:
    """Follows the parser's events."""

    def __init__(self, request: web.Request, stack: ExitStack, before_file: Callable[[PictureForm], None]) -> None:
        self._services = services_of(request)
        self._stack = stack
        self._before_file = before_file
        self._name = ""
        self._is_file = False
        self._text = bytearray()
        self._text_bytes = 0
        self._passed_bytes = 0
        self._file: tuple[Path, FilePart] | None = None
        self.form = PictureForm()

    async def take(self, event: MultipartSegment | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._name, self._is_file = event.name or "", event.filename is not None
            self._text.clear()
        elif event is None:
            self._end()
        elif self._is_file:
            await self._receive(event)
        else:
            self._add_text(event)

    async def _receive(self, piece: bytearray) -> None:
        if self.form.refusal is not None:
            self._passed_bytes += len(piece)
            if self._passed_bytes > MAX_PASSED_BYTES:
                raise self.form.refusal
        elif piece:
            try:
                await self._add_to_file(piece)
            except Forbidden:
                raise
            except RequestError as refusal:
                self.form.refusal, self._file = refusal, None

    async def _add_to_file(self, piece: bytearray) -> None:
        if self._file is None:  # only now: a browser sends an empty file where none was chosen
            self._before_file(self.form)
            await asyncio.to_thread(self._services.disk.require_room)
            target, path = self._stack.enter_context(self._services.files.incoming())
            self._file = path, FilePart(target)
        await self._file[1].write(bytes(piece))

    def _add_text(self, piece: bytearray) -> None:
        self._text_bytes += len(piece)
        if self._text_bytes > MAX_JSON_BYTES:
            raise _too_large()
        self._text += piece

    def _end(self) -> None:
        if self._file is not None:
            path, part = self._file
            self.form.files.append((path, part.finish()))
            self._file = None
        elif not self._is_file:
            self.form.fields.append((self._name, self._text.decode()))


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"A form may have at most {MAX_JSON_BYTES} bytes of text.", extra={"limit": MAX_JSON_BYTES})
