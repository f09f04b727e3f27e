from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import pytest
from yarl import URL

from tests.api.conftest import HEADERS, Server, StartServer
from tests.api.test_common import ask_raw
from tests.api.test_status import accept, complete_next
from tests.conftest import FakeClock, picture_bytes
from umrgen_core.files import Shelf
from umrgen_core.keys import mint_key

OWN = "session_id=sid_ext_gen"


@dataclass
class Got:
    """An answer without JSON."""

    status: int
    content: bytes
    headers: Mapping[str, str]


async def fetch(server: Server, url: str, method: str = "GET", **headers: str) -> Got:
    """A request without a key, unless `headers` has one."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(server.url + url, encoded=True), headers=names) as response,
    ):
        return Got(response.status, await response.read(), response.headers)


async def put_files(server: Server) -> dict[str, str]:
    """A reference and an output of the development agent: their paths."""
    _, uploaded, _ = await server.upload(picture_bytes(120, 70, "JPEG"))
    await accept(server)
    output = await complete_next(server)
    return {
        "reference": uploaded["url"].partition("?")[0],
        "output": f"/outputs/sid_ext_gen/{output.filename}",
    }


async def stranger(server: Server) -> str:
    """The Authorization of another agent."""
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key)
    return f"Bearer {key}"


async def test_a_file_is_for_who_knows_its_session_or_has_its_owners_key(server: Server) -> None:
    bob = await stranger(server)
    for path in (await put_files(server)).values():
        assert (await fetch(server, f"{path}?{OWN}")).status == 200
        assert (await fetch(server, path, **HEADERS)).status == 200
        assert (await fetch(server, f"{path}?{OWN}", Authorization=bob)).status == 200
        for session in ("", "?session_id=", "?session_id=sid_ext_bob", f"?{OWN}x", "?session_id=SID_EXT_GEN", "?x"):
            assert (await fetch(server, path + session)).status == 403
            assert (await fetch(server, path + session, Authorization=bob)).status == 403
            assert (await fetch(server, path + session, Authorization="Bearer nonsense")).status == 403


async def test_the_owners_key_alone_counts_where_the_key_is_required(start_server: StartServer) -> None:
    server = await start_server(files={"require_key": True})
    bob = await stranger(server)
    for path in (await put_files(server)).values():
        assert (await fetch(server, path, **HEADERS)).status == 200
        assert (await fetch(server, f"{path}?{OWN}")).status == 403
        assert (await fetch(server, f"{path}?{OWN}", Authorization=bob)).status == 403


async def test_whether_a_file_exists_is_not_told_to_who_may_not_see_it(server: Server) -> None:
    for path in (await put_files(server)).values():
        there = await fetch(server, path)
        missing = await fetch(server, path[:-5] + "9.png")
        assert (there.status, there.content) == (missing.status, missing.content) == (403, missing.content)


async def test_a_file_that_does_not_exist_is_404_for_who_may_see_it(server: Server) -> None:
    paths = await put_files(server)
    swapped = [paths["output"].replace("outputs", "references"), paths["reference"].replace("references", "outputs")]
    for path in [*swapped, "/outputs/sid_ext_gen/umrgen_1.png", "/references/sid_ext_gen/x"]:
        assert (await fetch(server, f"{path}?{OWN}")).status == 404
        assert (await fetch(server, path, **HEADERS)).status == 404
    elsewhere = paths["output"].replace("sid_ext_gen", "sid_ext_bob")
    assert (await fetch(server, f"{elsewhere}?session_id=sid_ext_bob")).status == 404


async def test_an_expired_file_is_404(server: Server, clock: FakeClock) -> None:
    paths = (await put_files(server)).values()
    clock.advance(7 * 86_400 - 1)
    assert [(await fetch(server, f"{path}?{OWN}")).status for path in paths] == [200, 200]
    clock.advance(1)
    assert [(await fetch(server, f"{path}?{OWN}")).status for path in paths] == [404, 404]


async def test_a_file_that_has_left_the_disk_is_404(server: Server) -> None:
    paths = (await put_files(server)).values()
    for shelf in (Shelf.REFERENCES, Shelf.OUTPUTS):
        for stored in server.services.files.path(shelf, "").iterdir():
            stored.unlink()
    assert [(await fetch(server, f"{path}?{OWN}")).status for path in paths] == [404, 404]


async def test_a_file_comes_with_the_headers_of_the_contract(server: Server, clock: FakeClock) -> None:
    paths = await put_files(server)
    clock.advance(100.5)
    for kind, media_type in (("reference", "image/jpeg"), ("output", "image/png")):
        headers = (await fetch(server, f"{paths[kind]}?{OWN}")).headers
        filename = paths[kind].rpartition("/")[2]
        assert headers["Content-Type"] == media_type
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == f"private, max-age={7 * 86_400 - 101}"
        assert headers["Content-Disposition"] == f'inline; filename="{filename}"'
        assert headers["ETag"]
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["X-Request-ID"]
        assert headers["Server"] == "umrgen"


async def test_head_answers_as_get_without_the_content(server: Server) -> None:
    for path in (await put_files(server)).values():
        whole, head = [await fetch(server, f"{path}?{OWN}", method) for method in ("GET", "HEAD")]
        assert (head.status, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(whole.content))
        assert head.headers["ETag"] == whole.headers["ETag"]
        assert (await fetch(server, path, "HEAD")).status == 403


async def test_a_range_is_served_as_asked(server: Server) -> None:
    for path in (await put_files(server)).values():
        whole = (await fetch(server, f"{path}?{OWN}")).content
        for asked, wanted in (("bytes=0-9", whole[:10]), ("bytes=100-", whole[100:]), ("bytes=-7", whole[-7:])):
            got = await fetch(server, f"{path}?{OWN}", Range=asked)
            assert (got.status, got.content) == (206, wanted)
        got = await fetch(server, f"{path}?{OWN}", Range="bytes=99999999-")
        assert (got.status, got.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")


async def test_a_file_that_the_client_has_is_not_sent_again(server: Server) -> None:
    path = (await put_files(server))["output"]
    tag = (await fetch(server, f"{path}?{OWN}")).headers["ETag"]
    again = await fetch(server, f"{path}?{OWN}", If_None_Match=tag)
    assert (again.status, again.content) == (304, b"")
    assert (await fetch(server, f"{path}?{OWN}", If_None_Match='"other"')).status == 200
    assert (await fetch(server, path, If_None_Match=tag)).status == 403


TRICKS = [
    *("", ".", "..", "%00", "x%00.png", "~", "%ff", "%ED%A0%80", "../umrgen.sqlite3", "..%2fumrgen.sqlite3"),
    *("%2e%2e/%2e%2e/umrgen.sqlite3", "..%5cumrgen.sqlite3", "%252e%252e%252f", "/etc/passwd", "%2fetc%2fpasswd"),
]


async def test_no_path_leads_out_of_the_store(server: Server) -> None:
    (server.services.settings.storage.data_dir / "secret").write_text("secret")
    disk_names = [path.name for path in server.services.files.path(Shelf.OUTPUTS, "").iterdir()]
    for name in [*TRICKS, "../secret", "..%2fsecret", "..%2f..%2fsecret", *disk_names]:
        for session in ("sid_ext_gen", "..", "%2e%2e", "sid_ext_gen%2f.."):
            for shelf in ("references", "outputs"):
                head = f"GET /{shelf}/{session}/{name}?session_id={session} HTTP/1.1\r\nHost: x\r\n\r\n"
                status, body, _ = await ask_raw(server.url, head.encode())
                assert (status, body["success"]) in {(403, False), (404, False)}, head


@pytest.mark.parametrize("path", ["/outputs/sid_ext_gen/a", "/references/sid_ext_gen/a"])
async def test_files_can_only_be_read(server: Server, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await fetch(server, f"{path}?{OWN}", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_range_beyond_the_end_is_answered_in_json(server: Server) -> None:
    for path in (await put_files(server)).values():
        for wanted in ("bytes=99999999-", "bytes=x-y"):
            got = await fetch(server, f"{path}?{OWN}", Range=wanted)
            assert got.status == 416
            assert got.headers["Content-Type"].startswith("application/json")
            assert b'"code":"range_not_satisfiable"' in got.content


async def test_a_precondition_that_fails_is_no_picture_and_is_not_kept(server: Server) -> None:
    for path in (await put_files(server)).values():
        got = await fetch(server, f"{path}?{OWN}", If_Match='"other"')
        assert (got.status, got.content) == (412, b"")
        assert got.headers["Cache-Control"] == "no-store"
        assert not got.headers.get("Content-Type", "").startswith("image/")
