"""An upload on its way in: the multipart body streamed to disk, the file counted and hashed."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from aiohttp import hdrs, web
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from umrgen_api.body import iterate_body, require_media_type
from umrgen_core.errors import FieldProblem, FileTooLarge, InvalidRequest

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_PARTS = 16
MAX_OTHER_PART_BYTES = 64 * 1024
FILE_PART = "file"
WRITTEN_BYTES = 256 * 1024
"""So much is hashed and written at a time: a hop to a thread costs more than the few kilobytes that arrive at once."""

_HINT = "send multipart/form-data with the image in the part 'file', such as curl -F file=@image.jpg"


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes that arrived: how many, and their SHA-256."""

    bytes: int
    sha256: str


class FilePart:
    """One file of a form: writes the file to disk as it comes, within the cap."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self._arrived = bytearray()
        self.bytes = 0

    async def write(self, piece: bytes | bytearray) -> None:
        """Take the next bytes. Raises FileTooLarge."""
        self.bytes += len(piece)
        if self.bytes > MAX_FILE_BYTES:
            raise FileTooLarge(
                f"The file has more than {MAX_FILE_BYTES} bytes. Scale it down; 4 megapixels are all that is kept.",
                extra={"limit": MAX_FILE_BYTES},
            )
        self._arrived += piece
        if len(self._arrived) >= WRITTEN_BYTES:
            await asyncio.to_thread(self._write_arrived)

    def _write_arrived(self) -> None:
        self._digest.update(self._arrived)
        self._target.write(self._arrived)
        self._arrived = bytearray()

    def finish(self) -> Upload:
        """What was written, once it is whole."""
        self._write_arrived()
        self._target.flush()
        return Upload(self.bytes, self._digest.hexdigest())


async def receive_upload(request: web.Request, target: BinaryIO) -> Upload:
    """Stream the part `file` of the request to `target`, answering a cap as soon as it is passed.

    Raises UnsupportedMediaType, InvalidRequest, FileTooLarge or RequestTimeout.
    """
    require_media_type(request, "multipart/form-data")
    parser = make_parser(request, MAX_PARTS, _HINT)
    receiver = _Receiver(target)
    try:
        async for piece in iterate_body(request):
            for event in parser.parse(piece):
                await receiver.take(event)
        parser.close(check_complete=True)
    except (MultipartError, UnicodeError, ValueError) as error:
        raise InvalidRequest([FieldProblem(FILE_PART, f"the multipart body is broken ({error}); {_HINT}")]) from None
    if receiver.upload is None:
        raise InvalidRequest([FieldProblem(FILE_PART, f"is required; {_HINT}")])
    return receiver.upload


class _Receiver:
    """Follows the parser's events; only the first part named `file` is kept."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._part: FilePart | None = None
        self._other_bytes = 0
        self.upload: Upload | None = None

    async def take(self, event: MultipartSegment | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            wanted = event.name == FILE_PART and self.upload is None
            self._part = FilePart(self._target) if wanted else None
        elif event is None:
            self._end_part()
        elif self._part is not None:
            await self._part.write(event)
        else:
            self._count_other(len(event))

    def _end_part(self) -> None:
        if self._part is not None:
            self.upload = self._part.finish()
        self._part = None

    def _count_other(self, size: int) -> None:
        self._other_bytes += size
        if self._other_bytes > MAX_OTHER_PART_BYTES:
            raise InvalidRequest(
                [FieldProblem("request", "parts other than 'file' are too large", MAX_OTHER_PART_BYTES)]
            )


def make_parser(request: web.Request, most_parts: int, hint: str) -> PushMultipartParser:
    """A parser for the request's multipart body. Raises InvalidRequest, with the `hint`, without a usable boundary."""
    try:
        _, options = parse_options_header(request.headers.get(hdrs.CONTENT_TYPE, ""))
        return PushMultipartParser(options.get("boundary", ""), max_segment_count=most_parts, max_header_count=8)
    except (MultipartError, UnicodeError, ValueError):
        raise InvalidRequest([FieldProblem("Content-Type", f"has no usable boundary; {hint}")]) from None
