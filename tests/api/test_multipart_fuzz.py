"""Bodies that nobody would write: each gets an answer of the contract, leaves nothing behind and blocks nobody."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Server, StartServer
from tests.api.test_common import AUTH
from tests.api.test_malformed_http import CLOSE, HOST, Heard, check_conversation
from tests.api.test_upload import list_incoming
from tests.conftest import picture_bytes

PICTURE = picture_bytes(64, 64)


def fuzz(examples: int) -> Any:
    """The same examples in every run, and few enough for some 20 seconds."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=checks)


@pytest.fixture
async def open_server(start_server: StartServer) -> Server:
    """Limits out of the way: the same server takes every example."""
    limits = {"concurrent_jobs": 100_000, "queued_jobs": 100_000, "rate_per_minute": 10**6, "references": 100_000}
    return await start_server(limits=limits)


async def send(server: Server, path: bytes, media_type: bytes, body: bytes) -> Heard:
    """The one answer to a body of this type; the next client is served as ever."""
    head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + CLOSE + AUTH + b"Content-Type: " + media_type
    sent = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    conversation = await check_conversation(server, sent)
    assert len(conversation.answers) == 1, (media_type, body[:2000])
    return conversation.answers[0]


async def upload(server: Server, media_type: bytes, body: bytes) -> Heard:
    """The answer to an upload; what came in and was refused is gone."""
    answer = await send(server, b"/api/v1/upload-reference", media_type, body)
    assert answer.status in (200, 400, 413, 415), answer.raw
    assert list_incoming(server) == []
    return answer


BREAKS = [b"\r\n", b"\n", b"\r", b"", b"\r\n\r\n", b"\r\r\n"]
SCRAPS = [
    *rb"""--B
--B--
--C
Content-Disposition: form-data
Content-Disposition:
; name="file"
; name=file
; name="x"
; name*=x''file
; filename="a.png"
; filename="../../x"
; filename*=UTF-8''%e2%82%ac
; filename*=bogus'en'%ff
; filename*0=a; filename*1=b
Content-Type: image/png
Content-Type: multipart/mixed; boundary=B
Content-Transfer-Encoding: base64
Content-Length: -1
charset=bogus""".split(b"\n"),
    *(
        b"--",
        b"B",
        b'"',
        b"\\",
        b";",
        b"=",
        b":",
        b"--B--\r\n",
        b"\r\n--B\r\n",
        b"\x00",
        b"\xff\xfe",
        PICTURE,
        b"a" * 5000,
    ),
    *(b'; name="\xff"', b'; name="fi\x00le"', b"X-\xff: \xfe"),
]
NAMES = st.sampled_from(
    [b"file", b"x", b"", b"FILE", b"fi\x00le", "dat\u00e9".encode(), b"\xff", b'a\\"b', b"_charset_"]
)
FILENAMES = st.sampled_from(
    [b"a.png", b"", b"../a", b"a\x00b", b"\xff\xfe", b"a" * 3000, b'a\\"b', b"a\x1b[31m", b"C:\\a"]
)
CONTENTS = st.one_of(
    st.just(PICTURE), st.binary(max_size=300), st.sampled_from([b"", b"--B", b"\r\n--B", b"\r\n--B--x"])
)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """A part that is nearly right."""
    disposition = b'Content-Disposition: form-data; name="%s"' % draw(NAMES)
    if draw(st.booleans()):
        disposition += b'; filename="%s"' % draw(FILENAMES)
    headers = [disposition, *draw(st.lists(st.sampled_from(SCRAPS), max_size=4))]
    lines = b"".join(header + draw(st.sampled_from(BREAKS[:3])) for header in headers)
    return b"--B\r\n" + lines + draw(st.sampled_from(BREAKS)) + draw(CONTENTS) + draw(st.sampled_from(BREAKS))


@fuzz(250)
@given(
    st.lists(parts(), max_size=20), st.sampled_from([b"--B--\r\n", b"--B--", b"--B", b"", b"--B--\r\nepilogue", b"-"])
)
async def test_parts_that_are_nearly_right(open_server: Server, made: list[bytes], end: bytes) -> None:
    await upload(open_server, b"multipart/form-data; boundary=B", b"".join(made) + end)


@fuzz(250)
@given(st.lists(st.one_of(st.sampled_from(SCRAPS), st.sampled_from(BREAKS), st.binary(max_size=30)), max_size=40))
async def test_scraps_in_any_order(open_server: Server, scraps: list[bytes]) -> None:
    await upload(open_server, b"multipart/form-data; boundary=B", b"".join(scraps))


VISIBLE = st.binary(max_size=90).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F))
PARAMETERS = st.one_of(
    VISIBLE,
    VISIBLE.map(lambda raw: b"boundary=" + raw),
    VISIBLE.map(lambda raw: b'boundary="%s"' % raw),
    st.sampled_from(
        [b"boundary*=utf-8''B", b"boundary*0=B; boundary*1=C", b"boundary=B; boundary=C", b"boundary=" + b"B" * 5000]
    ),
    st.sampled_from(
        [b"boundary=B; charset=utf-16", b'boundary="B', b"boundary==?x?=", b"boundary=\tB", b"BOUNDARY=B", b";;;;"]
    ),
)


@fuzz(200)
@given(PARAMETERS, st.booleans())
async def test_boundaries_of_any_kind(open_server: Server, parameters: bytes, spaced: bool) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PICTURE + b"\r\n--B--\r\n"
    await upload(open_server, b"multipart/form-data" + (b"; " if spaced else b";") + parameters, body)


HEADER = b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
HEAVY = {
    "100,000 parts": (HEADER % b"x" + b"y\r\n") * 100_000 + b"--B--\r\n",
    "100,000 parts without a header": b"--B\r\n\r\n\r\n" * 100_000 + b"--B--\r\n",
    "100,000 boundaries": b"--B\r\n" * 100_000,
    "100,000 headers in a part": b"--B\r\n" + b"X: y\r\n" * 100_000 + b"\r\nx\r\n--B--\r\n",
    "a header of 9 MB": b"--B\r\nX: " + b"y" * 9_000_000 + b"\r\n\r\nx\r\n--B--\r\n",
    "a megabyte before the first boundary": b"x" * 1_000_000 + HEADER % b"file" + PICTURE + b"\r\n--B--\r\n",
    "line ends alone": b"\r\n" * 4_000_000,
    "boundaries that nearly end": HEADER % b"file" + b"\r\n--" * 2_000_000,
    "a nest of a thousand": b"".join(b"--B\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n" for _ in range(1000)),
    "two files": (HEADER % b"file" + PICTURE + b"\r\n") * 2 + b"--B--\r\n",
    "a file after what follows the end": b"--B--\r\n" + HEADER % b"file" + PICTURE + b"\r\n--B--\r\n",
}


@pytest.mark.parametrize("name", HEAVY)
async def test_a_heavy_body_is_answered_in_time(open_server: Server, name: str) -> None:
    began = time.monotonic()
    await upload(open_server, b"multipart/form-data; boundary=B", HEAVY[name])
    assert time.monotonic() - began < 8


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just("a star"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["prompt", "negative", "width", "height", "steps", "seed", "reference_images", "model", "loras"]
)


@fuzz(300)
@given(st.dictionaries(FIELDS | st.text(max_size=5), VALUES, max_size=8), st.booleans())
async def test_json_of_any_fields(open_server: Server, fields: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps({"prompt": "a star", **fields}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    answer = await send(open_server, b"/api/v1/generate", b"application/json", body)
    assert answer.status in (202, 400), answer.raw


PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b'"prompt"',
    b'"a star"',
    b"null",
    b"NaN",
    b"-",
    b"1e999",
    b"\\u",
    b"\\ud800",
]
PIECES += [
    b'"\\u0000"',
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"9" * 5000,
    b"[" * 5000,
    b"0.0",
    b"\x00",
    b" ",
    b"/**/",
    b"'",
    b"true",
]


@fuzz(300)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=30))
async def test_json_of_any_pieces(open_server: Server, pieces: list[bytes]) -> None:
    answer = await send(open_server, b"/api/v1/generate", b"application/json", b"".join(pieces))
    assert answer.status in (202, 400), answer.raw


@fuzz(150)
@given(VISIBLE, st.binary(max_size=60))
async def test_media_types_of_any_kind(open_server: Server, media_type: bytes, body: bytes) -> None:
    for path in (b"/api/v1/generate", b"/api/v1/upload-reference"):
        assert (await send(open_server, path, media_type, body)).status in (400, 415)


@fuzz(100)
@given(VISIBLE)
async def test_idempotency_keys_of_any_kind(open_server: Server, key: bytes) -> None:
    head = b"POST /api/v1/generate HTTP/1.1\r\n" + HOST + CLOSE + AUTH + b"Content-Type: application/json\r\n"
    sent = head + b"Idempotency-Key: " + key + b'\r\nContent-Length: 20\r\n\r\n{"prompt": "a star"}'
    conversation = await check_conversation(open_server, sent)
    visible = all(0x21 <= byte <= 0x7E for byte in key.strip()) and key.strip()
    assert conversation.statuses in ([202], [400]) if visible else conversation.statuses == [400]
