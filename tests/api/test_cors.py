from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.api.conftest import Server
from tests.conftest import ROOT
from umrgen_core.config import load_settings
from umrgen_core.errors import ConfigError

APP = "https://app.example"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


async def ask(server: Server, method: str, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
    async with (
        aiohttp.ClientSession(server.url) as stranger,
        stranger.request(method, path, headers=headers) as response,
    ):
        await response.read()
        return response


@pytest.fixture
async def open_server(start_server) -> Server:
    return await start_server(api={"port": 0, "cors_origins": [APP]})


async def test_no_page_is_let_in_by_default(server: Server) -> None:
    for method, headers in (("OPTIONS", PREFLIGHT), ("GET", {"Origin": APP})):
        response = await ask(server, method, "/api/v1/references", headers)
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
        assert "Vary" not in response.headers


async def test_a_named_page_is_told_beforehand_what_it_may_send(open_server: Server) -> None:
    response = await ask(open_server, "OPTIONS", "/api/v1/generate", PREFLIGHT)
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert {"GET", "POST", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert response.headers["Vary"] == "Origin"


async def test_a_librarys_own_headers_are_allowed_and_nothing_else_is_repeated(open_server: Server) -> None:
    for asked, allowed in (("authorization,x-stainless-lang", True), ("a b", False), ("x" * 70 + ";y", False)):
        headers = PREFLIGHT | {"Access-Control-Request-Headers": asked}
        response = await ask(open_server, "OPTIONS", "/v1/images/generations", headers)
        assert (asked in response.headers["Access-Control-Allow-Headers"]) is allowed


async def test_a_preflight_tells_nothing_about_what_exists(open_server: Server) -> None:
    headers = [
        {name: value for name, value in response.headers.items() if name not in ("X-Request-ID", "Date")}
        for response in [
            await ask(open_server, "OPTIONS", path, PREFLIGHT)
            for path in ("/api/v1/generate", "/api/v1/nothing", "/api/v1/status/ext_1")
        ]
    ]
    assert headers[0] == headers[1] == headers[2]


async def test_a_named_page_may_read_every_answer_errors_too(open_server: Server) -> None:
    for path, status in (("/healthz", 200), ("/api/v1/references", 401), ("/nothing", 404)):
        response = await ask(open_server, "GET", path, {"Origin": APP})
        assert response.status == status
        assert response.headers["Access-Control-Allow-Origin"] == APP
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example", APP.upper()])
async def test_another_page_is_not_let_in(open_server: Server, origin: str) -> None:
    for method, headers in (("OPTIONS", PREFLIGHT | {"Origin": origin}), ("GET", {"Origin": origin})):
        response = await ask(open_server, method, "/healthz", headers)
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"  # a cache must not give this answer to the named page


async def test_a_star_lets_every_page_in_still_without_credentials(start_server) -> None:
    server = await start_server(api={"port": 0, "cors_origins": ["*"]})
    response = await ask(server, "GET", "/healthz", {"Origin": "https://any.example"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://app.example/page", "ftp://a.b", ""])
def test_what_is_no_origin_stops_the_start(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigError, match="cors_origins"):
        raise_from_config(tmp_path, origin)


def raise_from_config(folder: Path, origin: str) -> None:
    config = folder / "config.toml"
    shipped = (ROOT / "config.toml").read_text()
    config.write_text(shipped.replace("cors_origins = []", f'cors_origins = ["{origin}"]'))
    load_settings(config)
