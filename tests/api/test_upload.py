from __future__ import annotations

import asyncio
import hashlib
import io
import re
import time
from typing import Any

import pytest
from PIL import Image

from tests.api.conftest import Server, StartServer
from tests.api.test_common import AUTH, Answer, ask_raw, ask_with
from tests.api.test_status import accept
from tests.conftest import FakeClock, picture_bytes
from umrgen_core.clock import format_time
from umrgen_core.files import Shelf
from umrgen_core.keys import mint_key

UPLOAD = "/api/v1/upload-reference"
REFERENCES = "/api/v1/references"
LIMIT_BYTES = 10_485_760
FILENAME = re.compile(r"image_\d{37,}\.(jpg|png|webp)")
TYPES = {"PNG": ("png", "image/png"), "JPEG": ("jpg", "image/jpeg"), "WEBP": ("webp", "image/webp")}


async def fetch(server: Server, url: str) -> tuple[int, bytes, str]:
    async with server.session.get(url) as response:
        return response.status, await response.read(), response.content_type


def list_incoming(server: Server) -> list[str]:
    folder = server.services.settings.storage.data_dir / "files" / Shelf.INCOMING
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("image_format", TYPES)
async def test_the_answer_describes_the_file_as_it_is_served(server: Server, image_format: str) -> None:
    sent = picture_bytes(120, 70, image_format)
    status, body, _ = await server.upload(sent)
    extension, media_type = TYPES[image_format]
    assert (status, body["success"]) == (200, True)
    assert FILENAME.fullmatch(body["filename"])
    assert body["filename"].endswith(f".{extension}")
    assert body["filename"].startswith(f"image_{server.services.clock.wall_us() // 1000}")
    assert body["url"] == f"/references/sid_ext_gen/{body['filename']}?session_id=sid_ext_gen"
    served_status, served, served_type = await fetch(server, body["url"])
    assert (served_status, served_type) == (200, media_type)
    assert (body["bytes"], body["sha256"]) == (len(served), hashlib.sha256(served).hexdigest())
    assert (body["width"], body["height"]) == Image.open(io.BytesIO(served)).size == (120, 70)
    original = {"width": 120, "height": 70, "bytes": len(sent), "format": image_format.lower()}
    assert body["original"] == original
    assert body["expires_at"] == format_time(server.services.clock.wall_us() + 7 * 86_400 * 1_000_000)
    assert list_incoming(server) == []


async def test_a_picture_of_more_than_4_megapixels_is_scaled_down(server: Server) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000), "red").save(buffer, "PNG")
    _, body, _ = await server.upload(buffer.getvalue())
    assert body["width"] * body["height"] <= 4_000_000
    assert (body["original"]["width"], body["original"]["height"]) == (3000, 2000)
    assert body["width"] / body["height"] == pytest.approx(1.5, abs=0.01)


async def test_a_photo_is_stored_as_its_camera_was_held(server: Server) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for image_format in TYPES:
        status, body, _ = await server.upload(picture_bytes(120, 70, image_format, exif=exif))
        assert status == 200, body
        assert (body["width"], body["height"]) == (70, 120)


@pytest.mark.parametrize("filename", ["a.jpg", "a", "../../etc/passwd", "a.exe", "ä.png", "a" * 300, 'a";b.png', "%00"])
async def test_content_is_recognised_whatever_its_name(server: Server, filename: str) -> None:
    status, body, _ = await server.upload(picture_bytes(), filename)
    assert (status, body["filename"][-4:]) == (200, ".png")


async def test_the_same_bytes_keep_their_filename_and_count_their_time_anew(server: Server, clock: FakeClock) -> None:
    _, first, _ = await server.upload(picture_bytes(seed=1))
    clock.advance(3600)
    _, second, _ = await server.upload(picture_bytes(seed=1), "other name.png")
    _, other, _ = await server.upload(picture_bytes(seed=2))
    assert second["filename"] == first["filename"] != other["filename"]
    assert second["expires_at"] > first["expires_at"]
    assert len((await server.call("GET", REFERENCES))[1]["references"]) == 2


async def test_the_same_bytes_are_published_anew_when_their_file_is_missing(server: Server) -> None:
    _, first, _ = await server.upload(picture_bytes())
    [stored] = (server.services.settings.storage.data_dir / "files" / Shelf.REFERENCES).iterdir()
    stored.unlink()
    assert (await fetch(server, first["url"]))[0] == 404
    _, second, _ = await server.upload(picture_bytes())
    assert second == first
    assert (await fetch(server, second["url"]))[0] == 200


async def test_the_same_bytes_at_the_same_time_are_one_reference(server: Server) -> None:
    answers = await asyncio.gather(*(server.upload(picture_bytes()) for _ in range(4)))
    assert [status for status, _, _ in answers] == [200] * 4
    assert len({body["filename"] for _, body, _ in answers}) == 1
    assert (await fetch(server, answers[0][1]["url"]))[0] == 200


async def test_a_file_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(server: Server) -> None:
    for image_format in TYPES:
        picture = picture_bytes(image_format=image_format)
        status, body, _ = await server.upload(picture.ljust(LIMIT_BYTES, b"\0"))
        assert (status, body.get("original", {}).get("bytes")) == (200, LIMIT_BYTES), (image_format, body)
        status, body, _ = await server.upload(picture.ljust(LIMIT_BYTES + 1, b"\0"))
        assert (status, body["code"]) == (413, "file_too_large")
    assert list_incoming(server) == []


def part(
    content: bytes = b"", disposition: bytes = b'form-data; name="file"; filename="a.png"', more: bytes = b""
) -> bytes:
    return b"--B\r\nContent-Disposition: " + disposition + b"\r\n" + more + b"\r\n" + content + b"\r\n"


END = b"--B--\r\n"
PICTURE = picture_bytes()
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "the end alone": END,
    "no end boundary": part(PICTURE),
    "cut within the file": part(PICTURE)[:2000],
    "cut within the headers": part(PICTURE)[:30],
    "another boundary": part(PICTURE).replace(b"--B", b"--C") + b"--C--\r\n",
    "no part named file": part(PICTURE, b'form-data; name="image"; filename="a.png"') + END,
    "a part without a name": part(PICTURE, b"form-data") + END,
    "no disposition": b"--B\r\nContent-Type: image/png\r\n\r\n" + PICTURE + b"\r\n" + END,
    "an empty file": part(b"") + END,
    "a name that is not UTF-8": part(PICTURE, b'form-data; name="file\xff"; filename="\xfe.png"') + END,
    "a header that is not UTF-8": part(PICTURE, more=b"X-\xff: \xfe\r\n") + END,
    "a header without a colon": part(PICTURE, more=b"nonsense\r\n") + END,
    "too many headers": part(PICTURE, more=b"".join(b"X-%d: y\r\n" % number for number in range(1000))) + END,
    "too long a header": part(PICTURE, more=b"X: " + b"y" * 100_000 + b"\r\n") + END,
    "a part within a part": part(
        part(PICTURE).replace(b"--B", b"--C"), more=b"Content-Type: multipart/mixed; boundary=C\r\n"
    )
    + END,
    "100,000 parts": part(b"x", b'form-data; name="x"') * 100_000 + END,
    "parts before the file that are too large": part(b"x" * 100_000, b'form-data; name="x"') + part(PICTURE) + END,
    "no multipart at all": PICTURE,
}


async def send(server: Server, body: bytes, media_type: str = "multipart/form-data; boundary=B") -> Answer:
    return await server.call("POST", UPLOAD, data=body, headers={"Content-Type": media_type})


async def test_a_broken_multipart_body_is_400_and_leaves_nothing_behind(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 1000})
    assert (await send(server, part(PICTURE) + END))[0] == 200
    began, codes = time.monotonic(), {}
    for name, body in BROKEN.items():
        status, answer, _ = await send(server, body)
        codes[name] = (status, answer.get("code"))
        assert list_incoming(server) == [], name
    taken = {
        name: code for name, code in codes.items() if code not in ((400, "invalid_request"), (400, "invalid_image"))
    }
    assert not taken
    assert time.monotonic() - began < 20
    assert len((await server.call("GET", REFERENCES))[1]["references"]) == 1


@pytest.mark.parametrize("parameter", ["", ";", "; boundary", "; boundary=", '; boundary=""', "; boundary=ä", "; b=B"])
async def test_a_boundary_that_is_missing_or_empty_is_400(server: Server, parameter: str) -> None:
    status, answer, _ = await send(server, part(PICTURE) + END, f"multipart/form-data{parameter}")
    assert (status, answer["code"]) == (400, "invalid_request")


async def test_a_filename_that_no_disk_would_take_is_no_matter_since_it_is_never_used(server: Server) -> None:
    status, _, _ = await send(server, part(PICTURE, b'form-data; name="file"; filename="a\0/../b"') + END)
    assert status == 200


async def test_small_parts_beside_the_file_are_no_matter(server: Server) -> None:
    field = part(b"hello", b'form-data; name="comment"')
    status, answer, _ = await send(server, field + part(PICTURE) + part(b"late") + field + END)
    assert (status, answer["original"]["bytes"]) == (200, len(PICTURE))


async def test_a_client_that_goes_away_leaves_nothing_behind(server: Server) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n" % UPLOAD.encode()
    sent = head + b"Content-Type: multipart/form-data; boundary=B\r\n" + AUTH + b"\r\n" + part(PICTURE)
    with pytest.raises(TimeoutError):
        await ask_raw(server.url, sent, timeout_s=0.3)
    deadline = time.monotonic() + 10
    while list_incoming(server) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    assert list_incoming(server) == []
    assert (await server.call("GET", REFERENCES))[1]["references"] == []


async def test_the_list_holds_the_own_references_newest_first(server: Server, clock: FakeClock) -> None:
    uploads: list[dict[str, Any]] = []
    for seed in range(3):
        uploads.insert(0, (await server.upload(picture_bytes(seed=seed)))[1])
        clock.advance(1)
    status, body, _ = await server.call("GET", REFERENCES)
    assert (status, body["success"]) == (200, True)
    assert [{"success": True, **reference} for reference in body["references"]] == uploads


async def test_a_deleted_reference_is_gone_everywhere(server: Server) -> None:
    _, kept, _ = await server.upload(picture_bytes())
    assert (await server.call("DELETE", f"{REFERENCES}/{kept['filename']}"))[0] == 200
    assert (await server.call("GET", REFERENCES))[1]["references"] == []
    assert (await fetch(server, kept["url"]))[0] == 404
    assert list((server.services.settings.storage.data_dir / "files" / Shelf.REFERENCES).iterdir()) == []
    assert (await server.generate(reference_images=[kept["filename"]]))[1]["code"] == "reference_not_found"
    assert (await server.call("DELETE", f"{REFERENCES}/{kept['filename']}"))[1]["code"] == "not_found"


async def test_an_expired_reference_is_gone_and_one_in_use_stays(server: Server, clock: FakeClock) -> None:
    _, idle, _ = await server.upload(picture_bytes(seed=1))
    _, used, _ = await server.upload(picture_bytes(seed=2))
    clock.advance(6 * 86_400)
    await accept(server, reference_images=[used["filename"]])
    clock.advance(86_400)
    listed = (await server.call("GET", REFERENCES))[1]["references"]
    assert [reference["filename"] for reference in listed] == [used["filename"]]
    assert (await server.generate(reference_images=[idle["filename"]]))[1]["code"] == "reference_not_found"


async def test_nobody_else_can_delete_a_reference(server: Server) -> None:
    _, kept, _ = await server.upload(picture_bytes())
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key)
    headers = {"Authorization": f"Bearer {key}"}
    status, theirs, _ = await ask_with(server, headers, f"{REFERENCES}/{kept['filename']}", "DELETE")
    _, nobodys, _ = await ask_with(server, headers, f"{REFERENCES}/image_1.png", "DELETE")
    assert (status, theirs) == (404, nobodys)
    assert (await fetch(server, kept["url"]))[0] == 200
