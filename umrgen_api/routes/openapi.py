"""GET /api/v1/openapi.json, and /docs: the same description, shown by a page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aiohttp import hdrs, web

from umrgen_api.access import needs
from umrgen_api.openapi.document import render_description
from umrgen_api.rates import Rate
from umrgen_core.agents import Scope
from umrgen_core.errors import NotFound

_PACKAGE = Path(__file__).parents[1]
_PAGE = _PACKAGE / "openapi" / "page" / "index.html"
ASSETS: Mapping[str, tuple[Path, str]] = {
    "start.js": (_PACKAGE / "openapi" / "page" / "start.js", "text/javascript"),
    "swagger-ui-bundle.js": (_PACKAGE / "vendor" / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (_PACKAGE / "vendor" / "swagger-ui" / "swagger-ui.css", "text/css"),
}
"""What the page loads, and as what."""
ASSET_AGE_S = 3600
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""`data:` is for the icons inside the style sheet."""


@needs(Scope.READ, Rate.READ)
async def get_description(_: web.Request) -> web.Response:
    """The OpenAPI description."""
    return _json(render_description())


async def get_public_description(_: web.Request) -> web.Response:
    """The same for those without a key: it tells what the documentation tells."""
    return _json(render_description())


async def get_docs(_: web.Request) -> web.FileResponse:
    """The page."""
    return _file(_PAGE, "text/html; charset=utf-8", "no-cache")


async def get_docs_asset(request: web.Request) -> web.FileResponse:
    """One of the files that the page loads. Raises NotFound."""
    asset = ASSETS.get(request.match_info["asset"])
    if asset is None:
        raise NotFound("The documentation has no such file.")
    path, media_type = asset
    return _file(path, f"{media_type}; charset=utf-8", f"max-age={ASSET_AGE_S}")


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", charset="utf-8")


def _file(path: Path, content_type: str, cache_control: str) -> web.FileResponse:
    return web.FileResponse(
        path,
        headers={
            hdrs.CONTENT_TYPE: content_type,
            hdrs.CACHE_CONTROL: cache_control,
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        },
    )
