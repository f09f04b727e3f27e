"""Who is signed in: a cookie that is HttpOnly and SameSite=Strict, and the key behind it looked up again each time.

A session ends with its time, with sign-out, and with its key: revoked, expired or past the grace of a rotation. Its
scopes and limits are those that the key has now. Only the console reads the cookie; the API never does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from umrgen_api.access import AGENT, may_use_development_key
from umrgen_api.console.origins import SECURE_COOKIE, is_https
from umrgen_api.console.sign_outs import SignOuts
from umrgen_api.console.tokens import Signer, Token, parse_token
from umrgen_api.services import services_of
from umrgen_core.agents import Agent
from umrgen_core.config import Settings
from umrgen_core.errors import ConfigError, Unauthorized, Unavailable
from umrgen_core.keys import digest_key
from umrgen_core.logs import get_logger
from umrgen_core.webhook_secrets import read_master

LOG = get_logger("console")
PATH = "/console"
COOKIE = "umrgen_console"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser, as of one request."""

    agent: Agent
    token: Token
    form_token: str
    is_development: bool


SESSION = web.RequestKey("console_session", Session)


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session_s = int(settings.console.session_s)
        self._sign_outs = SignOuts(settings.storage.data_dir / "console")
        self._signer: Signer | None = None

    async def open(self, request: web.Request, response: web.Response, agent: Agent, key: str) -> None:
        """Sign the browser in: its cookie goes out with `response`."""
        signer, now_s = await self._get_signer(), services_of(request).clock.wall_us() // 1_000_000
        _, text = signer.issue(agent.key_id, digest_key(key), now_s, self._session_s)
        secure = is_https(request)
        response.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            text,
            path="/" if secure else PATH,
            max_age=self._session_s,
            secure=secure,
            httponly=True,
            samesite="Strict",
        )
        LOG.info("signed_in", agent=agent.name)

    async def find(self, request: web.Request) -> Session | None:
        """The session of the request's cookie, or None."""
        parsed = parse_token(_read_cookie(request))
        if parsed is None or not self._is_in_time(request, parsed[0]):
            return None
        token, signature = parsed
        signer, known = await self._get_signer(), await services_of(request).agents.find_by_key_id(token.key_id)
        if known is None or not signer.is_signed(token, signature, known.sha256) or token.nonce in self._sign_outs:
            return None
        development = self._settings.auth.development_key
        is_development = bool(development) and known.sha256 == digest_key(development)
        if is_development and not may_use_development_key(request):
            return None
        return Session(known.agent, token, signer.form_token(token, known.sha256), is_development)

    async def get(self, request: web.Request) -> Session:
        """The session, which is the request's from now on. Raises Unauthorized."""
        session = await self.find(request)
        if session is None:
            raise Unauthorized
        request[SESSION] = session
        request[AGENT] = session.agent
        return session

    async def close(self, request: web.Request, response: web.Response) -> None:
        """Sign the browser out: the cookie goes, and what was copied of it counts no more."""
        session = await self.find(request)
        if session is not None:
            now_s = services_of(request).clock.wall_us() / 1e6
            try:
                await asyncio.to_thread(self._sign_outs.add, session.token.nonce, now_s, self._session_s)
            except OSError as error:  # the browser at least is signed out
                LOG.warning("sign_out_not_kept", agent=session.agent.name, error=str(error))
            LOG.info("signed_out", agent=session.agent.name)
        response.del_cookie(SECURE_COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
        response.del_cookie(COOKIE, path=PATH, httponly=True, samesite="Strict")
        response.headers["Clear-Site-Data"] = '"cache"'

    def _is_in_time(self, request: web.Request, token: Token) -> bool:
        now_s = services_of(request).clock.wall_us() // 1_000_000
        return now_s < min(token.expires_at_s, token.issued_at_s + self._session_s)

    async def _get_signer(self) -> Signer:
        """Made at first need: a service that nobody signs in to needs no secret. Raises Unavailable."""
        if self._signer is None:
            try:
                master = await asyncio.to_thread(read_master, self._settings.secret_path)
            except ConfigError as error:
                LOG.warning("console_without_secret", error=error.message)
                raise Unavailable("The console cannot sign anybody in now; the log says why.") from None
            self._signer = Signer(master)
        return self._signer


def _read_cookie(request: web.Request) -> str:
    names = (SECURE_COOKIE,) if is_https(request) else (SECURE_COOKIE, COOKIE)
    with suppress(ValueError):  # a Cookie header that no browser sends
        for name in names:
            if text := request.cookies.get(name):
                return text
    return ""
