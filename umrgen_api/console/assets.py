"""The console's own style sheet, scripts and icon: files of the package, the same for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aiohttp import hdrs, web

from umrgen_core.errors import NotFound

FOLDER = Path(__file__).with_name("static")
ASSETS: Mapping[str, str] = {
    "console.css": "text/css",
    "icon.svg": "image/svg+xml",
    "console.js": "text/javascript",
    "calls.js": "text/javascript",
    "create.js": "text/javascript",
    "events.js": "text/javascript",
    "follow.js": "text/javascript",
    "references.js": "text/javascript",
    "sizes.js": "text/javascript",
}


async def get_asset(request: web.Request) -> web.FileResponse:
    """One of them. Raises NotFound."""
    name = request.match_info["asset"]
    if name not in ASSETS:
        raise NotFound("The console has no such file.")
    headers = {hdrs.CONTENT_TYPE: f"{ASSETS[name]}; charset=utf-8", hdrs.CACHE_CONTROL: "no-cache"}
    return web.FileResponse(FOLDER / name, headers=headers)
