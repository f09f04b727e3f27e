from __future__ import annotations

import re
from html.parser import HTMLParser

import aiohttp

from tests.api.conftest import Server
from umrgen_api.routes import openapi


class Links(HTMLParser):
    """Everything that a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name, value in attrs if name in ("src", "href") and value]
        self.inline |= tag == "style" or (tag == "script" and "src" not in given)
        self.inline |= any(name == "style" or name.startswith("on") for name in given)


async def test_the_page_needs_no_key_and_loads_only_what_lies_beside_it(server: Server) -> None:
    async with aiohttp.ClientSession(server.url) as stranger:
        async with stranger.get("/docs") as response:
            assert (response.status, response.content_type) == (200, "text/html")
            links = Links()
            links.feed(await response.text())
        assert not links.inline
        local = [link for link in links.found if not link.startswith("data:")]
        assert {link.removeprefix("docs/") for link in local} == {*openapi.ASSETS, "openapi.json"}
        for link in local:
            async with stranger.get(f"/{link}") as response:
                assert response.status == 200
                assert await response.read()


async def test_the_page_may_run_and_reach_nothing_that_is_not_of_this_server(server: Server) -> None:
    for path in ("/docs", *(f"/docs/{name}" for name in openapi.ASSETS)):
        async with server.session.get(path) as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = response.headers["Content-Security-Policy"]
            directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
            sources = set(" ".join(directives.values()).split())
        assert directives.pop("default-src") == "'none'"
        assert directives["img-src"] == "'self' data:"
        assert sources == {"'none'", "'self'", "data:"}


async def test_the_page_starts_from_the_description_beside_it_and_asks_no_validator(server: Server) -> None:
    async with server.session.get("/docs/start.js") as response:
        start = await response.text()
    assert 'url: "docs/openapi.json"' in start
    assert "validatorUrl: null" in start
    assert "http" not in start
    async with server.session.get("/docs/swagger-ui.css") as response:
        style = await response.text()
    assert not re.findall(r"url\((?!['\"]?data:)|@import", style)


async def test_no_other_file_can_be_had_from_it(server: Server) -> None:
    for name in ("LICENSE", "index.html", "..%2f..%2fapp.py", "%2e%2e", "swagger-ui.css%00", "NOTICE"):
        status, body, _ = await server.call("GET", f"/docs/{name}")
        assert (status, body["code"]) == (404, "not_found")


def test_the_licence_lies_beside_what_it_is_for() -> None:
    folder = openapi.ASSETS["swagger-ui.css"][0].parent
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert (folder / "NOTICE").is_file()
    assert (folder / "swagger-ui-bundle.js.LICENSE.txt").is_file()
