"""A browser's requests to the console, without the browser: a cookie jar, and the form token out of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import aiohttp

FORM_TOKEN = re.compile(r'name="form-token" content="([^"]+)"')


class Answer:
    """Status, headers and text of one answer; redirects are not followed."""

    def __init__(self, response: aiohttp.ClientResponse, text: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self.cookies = response.cookies
        self.text = text


class Browser:
    """A signed-in browser, or one that is not yet. `headers` go along with everything."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.headers = dict(headers or {})
        self.cookie = ""
        self.form_token = ""

    async def ask(self, method: str, path: str, **arguments: Any) -> Answer:
        headers = {**self.headers, **({"Cookie": self.cookie} if self.cookie else {}), **arguments.pop("headers", {})}
        async with (
            aiohttp.ClientSession(self.url, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(method, path, headers=headers, allow_redirects=False, **arguments) as response,
        ):
            return Answer(response, await response.text(errors="replace"))

    async def get(self, path: str, **arguments: Any) -> Answer:
        return await self.ask("GET", path, **arguments)

    async def post(self, path: str, fields: Mapping[str, str] | None = None, **arguments: Any) -> Answer:
        """Send a form, with the token of this session."""
        return await self.ask("POST", path, data={"form_token": self.form_token, **(fields or {})}, **arguments)

    async def call(self, method: str, path: str, **arguments: Any) -> Answer:
        """What a script of the console sends."""
        headers = {"X-Form-Token": self.form_token, **arguments.pop("headers", {})}
        return await self.ask(method, path, headers=headers, **arguments)

    async def sign_in(self, key: str, **arguments: Any) -> Answer:
        """The answer to the sign-in; a cookie of it is kept, with the token of its forms."""
        answer = await self.ask("POST", "/console/sign-in", data={"key": key}, **arguments)
        if answer.cookies:
            ((name, morsel),) = answer.cookies.items()
            self.cookie = f"{name}={morsel.value}"
            page = await self.get("/console/sign-in")
            page = await self.get(page.headers.get("Location", "/console"))
            found = FORM_TOKEN.search(page.text)
            self.form_token = found[1] if found else ""
        return answer


async def sign_in(url: str, key: str) -> tuple[str, str]:
    """Cookie and form token of a new session."""
    browser = Browser(url)
    await browser.sign_in(key)
    return browser.cookie, browser.form_token
