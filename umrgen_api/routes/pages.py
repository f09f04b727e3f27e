"""GET /llms.txt and /skill.md: what a model needs to know, as text, without a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parents[1] / "pages"
CACHE = "public, max-age=300"


def _make_page(name: str, content_type: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def get_page(_: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": f"{content_type}; charset=utf-8", "Cache-Control": CACHE}
        return web.FileResponse(FOLDER / name, headers=headers)

    return get_page


get_llms = _make_page("llms.txt", "text/plain")
get_skill = _make_page("skill.md", "text/markdown")
