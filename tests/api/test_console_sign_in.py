"""Who gets into the console, and who never does: cookies, form tokens, origins, revoked keys."""

from __future__ import annotations

import os
import re
from http.cookies import Morsel

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.console import Browser
from tests.conftest import DEVELOPMENT_KEY, FakeClock
from umrgen_api.console.tokens import Signer, parse_token
from umrgen_core.accounts import Accounts
from umrgen_core.keys import digest_key, mint_key
from umrgen_core.webhook_secrets import read_master

PAGES = ("/console", "/console/gallery", "/console/queue", "/console/jobs/ext_1", "/console/outputs/a.png")
PUBLIC = "https://umrgen.example"


async def make_key(server: Server, name: str = "alice") -> str:
    key = mint_key()
    await server.services.agents.create_agent(name, f"sid_ext_{name}", key)
    return key


@pytest.fixture
async def alice(server: Server) -> Browser:
    browser = Browser(server.url)
    await browser.sign_in(await make_key(server))
    return browser


def only_cookie(answer) -> Morsel[str]:
    (cookie,) = answer.cookies.values()
    return cookie


async def is_let_in(browser: Browser) -> bool:
    page, call = await browser.get("/console/queue"), await browser.call("GET", "/console/api/status/ext_1")
    assert (page.status, call.status) in ((200, 404), (303, 401))
    if page.status == 303:
        assert page.headers["Location"].startswith("/console/sign-in")
    return page.status == 200


async def test_without_a_session_pages_lead_to_the_sign_in_and_calls_are_401(server: Server) -> None:
    nobody = Browser(server.url)
    for path in PAGES:
        answer = await nobody.get(path)
        assert (answer.status, answer.headers["Location"].partition("?")[0]) == (303, "/console/sign-in")
    for method, path in (("POST", "generate"), ("POST", "upload-reference"), ("DELETE", "jobs/x"), ("GET", "events/x")):
        answer = await nobody.ask(method, f"/console/api/{path}")
        assert (answer.status, '"code":"unauthorized"' in answer.text) == (401, True)
    for path in ("/console", "/console/jobs/x/erase", "/console/admin/queue", "/console/admin/keys"):
        assert (await nobody.post(path)).headers["Location"] == "/console/sign-in"


async def test_a_key_opens_a_session_whose_cookie_is_not_the_key(server: Server) -> None:
    key, browser = await make_key(server), Browser(server.url)
    answer = await browser.sign_in(key)
    cookie = only_cookie(answer)
    assert (answer.status, answer.headers["Location"]) == (303, "/console")
    assert (cookie.key, cookie["path"], cookie["httponly"], cookie["samesite"]) == (
        "umrgen_console",
        "/console",
        True,
        "Strict",
    )
    assert not cookie["secure"]
    assert key not in cookie.value
    assert digest_key(key) not in cookie.value
    assert await is_let_in(browser)


async def test_where_the_browser_speaks_https_the_cookie_is_bound_to_it(start_server: StartServer) -> None:
    server = await start_server(api={"public_url": PUBLIC}, auth={"development_key_public": True})
    for headers in ({"Origin": PUBLIC}, {"Host": "umrgen.example"}):
        cookie = only_cookie(await Browser(server.url, headers).sign_in(DEVELOPMENT_KEY))
        assert (cookie.key, cookie["path"], cookie["secure"]) == ("__Host-umrgen_console", "/", True)
        assert cookie["domain"] == ""
    plain = Browser(server.url, {"Origin": server.url})
    assert not only_cookie(await plain.sign_in(DEVELOPMENT_KEY))["secure"]
    plain.headers = {"Host": "umrgen.example"}
    assert not await is_let_in(plain)  # a sibling host could have set it


@pytest.mark.parametrize(("trusted", "said", "secure"), [
    (["127.0.0.0/8"], "https", True), (["127.0.0.0/8"], "http, https", True), (["127.0.0.0/8"], "http", False),
    (["10.0.0.0/8"], "https", False), ([], "https", False),
])  # fmt: skip
async def test_what_a_trusted_proxy_says_of_https_is_believed_and_no_other(
    start_server: StartServer, trusted: list[str], said: str, secure: bool
) -> None:
    server = await start_server(api={"trusted_proxies": trusted})
    key = await make_key(server)
    cookie = only_cookie(await Browser(server.url, {"X-Forwarded-Proto": said}).sign_in(key))
    assert bool(cookie["secure"]) is secure


async def test_the_api_never_takes_the_cookie(server: Server, alice: Browser) -> None:
    for path in ("/api/v1/me", "/api/v1/jobs", "/v1/models"):
        assert (await alice.call("GET", path)).status == 401
    assert (await alice.call("POST", "/api/v1/generate", json={"prompt": "a star"})).status == 401


async def test_a_wrong_key_is_refused_and_counted_with_the_others(start_server: StartServer) -> None:
    server = await start_server(auth={"failures_per_minute": 3})
    browser = Browser(server.url)
    for key in ("", "umr_x", mint_key()):
        answer = await browser.sign_in(key)
        assert (answer.status, "no valid key" in answer.text, answer.cookies) == (401, True, {})
    assert (await browser.sign_in(mint_key())).status == 429
    assert (await browser.sign_in(DEVELOPMENT_KEY)).status == 303


async def test_the_development_key_signs_nobody_in_through_a_proxy_before_or_after(server: Server) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    assert (await Browser(server.url, forwarded).sign_in(DEVELOPMENT_KEY)).status == 401
    browser = Browser(server.url)
    await browser.sign_in(DEVELOPMENT_KEY)
    assert await is_let_in(browser)
    browser.headers = forwarded
    assert not await is_let_in(browser)


async def test_a_session_ends_with_its_key_at_once(server: Server, clock: FakeClock) -> None:
    accounts = Accounts(server.services.database)
    await accounts.create_agent("carol", {})
    for end in ("revoke", "expire"):
        minted = await accounts.create_key("carol", "key", ["read"], None, {})
        browser = Browser(server.url)
        await browser.sign_in(minted.key)
        assert await is_let_in(browser)
        if end == "revoke":
            await accounts.revoke_key(minted.id)
        else:
            await accounts.rotate_key(minted.id, grace_s=60)
            assert await is_let_in(browser)
            clock.advance(61)
        assert not await is_let_in(browser)


async def test_a_session_ends_after_its_time(server: Server, alice: Browser, clock: FakeClock) -> None:
    clock.advance(12 * 3600 - 1)
    assert await is_let_in(alice)
    clock.advance(2)
    assert not await is_let_in(alice)


async def test_after_sign_out_a_copy_of_the_cookie_opens_nothing_even_after_a_restart(
    start_server: StartServer, clock: FakeClock
) -> None:
    server = await start_server()
    browser, other = Browser(server.url), Browser(server.url)
    key = await make_key(server)
    await browser.sign_in(key)
    await other.sign_in(key)
    answer = await browser.post("/console/sign-out")
    assert (answer.status, answer.headers["Location"]) == (303, "/console/sign-in")
    assert {cookie["max-age"] for cookie in answer.cookies.values()} == {"0"}
    again = await start_server(server.services.settings)
    for url in (server.url, again.url):
        browser.url = other.url = url
        assert not await is_let_in(browser)
        assert await is_let_in(other)


async def test_sign_outs_are_forgotten_when_their_sessions_would_have_expired(server: Server, clock: FakeClock) -> None:
    key, folder = await make_key(server), server.services.settings.storage.data_dir / "console"
    for seconds in (0, 3600, 12 * 3600):
        clock.advance(seconds)
        browser = Browser(server.url)
        await browser.sign_in(key)
        await browser.post("/console/sign-out")
    assert len(os.listdir(folder)) == 2


async def test_where_the_disk_takes_no_note_the_browser_is_signed_out_all_the_same(
    server: Server, alice: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    (server.services.settings.storage.data_dir / "console").write_bytes(b"no folder")
    answer = await alice.post("/console/sign-out")
    assert (answer.status, len(answer.cookies)) == (303, 2)
    assert "sign_out_not_kept" in capsys.readouterr().out


async def test_a_cookie_that_was_not_given_out_opens_nothing(server: Server, alice: Browser) -> None:
    name, _, text = alice.cookie.partition("=")
    parsed = parse_token(text)
    assert parsed is not None
    token, signature = parsed
    bob = await make_key(server, "bob")
    later = text.replace(f".{token.expires_at_s}.", f".{token.expires_at_s + 3600}.")
    others_key = f"{token.key_id + 1}{text[len(str(token.key_id)) :]}"
    now_s = server.services.clock.wall_us() // 1_000_000
    master = read_master(server.services.settings.secret_path)
    _, other_secret = Signer(b"another master secret of 32 bytes!").issue(token.key_id, digest_key(bob), now_s, 3600)
    _, other_digest = Signer(master).issue(token.key_id, digest_key(bob), now_s, 3600)
    swapped = text[: -len(signature)] + alice.form_token  # signed by us, for another purpose
    for forged in (later, others_key, other_secret, other_digest, swapped, text[:-1], text + "A", "", "1.2.3", "\xe9"):
        alice.cookie = f"{name}={forged}"
        assert not await is_let_in(alice), forged
    alice.cookie = f"{name}={text}"
    assert await is_let_in(alice)


@pytest.mark.parametrize("path", ["/console/jobs/ext_1/cancel", "/console/sign-out"])
async def test_a_form_needs_the_token_of_its_own_session(server: Server, alice: Browser, path: str) -> None:
    other = Browser(server.url)
    await other.sign_in(await make_key(server, "bob"))
    for token in ("", "wrong", other.form_token, "\xe9"):
        assert (await alice.post(path, {"form_token": token})).status == 403
        answer = await alice.call("DELETE", "/console/api/jobs/ext_1", headers={"X-Form-Token": token.strip("\xe9")})
        assert answer.status == 403
    assert (await alice.post(path)).status in (303, 404)


async def test_what_another_site_sends_is_refused(server: Server, alice: Browser) -> None:
    body = {"json": {"prompt": "a star"}}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await alice.post("/console/jobs/ext_1/erase", headers=headers)).status == 403
        assert (await alice.call("POST", "/console/api/generate", headers=headers, **body)).status == 403
        assert (await alice.sign_in(DEVELOPMENT_KEY, headers=headers)).status == 403
        assert (await alice.post("/console/sign-out", headers=headers)).status == 403
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert (await alice.call("POST", "/console/api/generate", headers=own, **body)).status == 202


async def test_after_signing_in_only_the_console_itself_is_gone_to(server: Server) -> None:
    key = await make_key(server)
    for where, expected in (
        ("/console/gallery?cursor=ext_1", "/console/gallery?cursor=ext_1"),
        ("https://evil.example/console", "/console"),
        ("//evil.example/console", "/console"),
        ("/console\\@evil.example", "/console"),
        ("/consoleevil", "/console"),
        ("/api/v1/me", "/console"),
        ("/console/\r\nSet-Cookie: a=b", "/console"),
    ):
        answer = await Browser(server.url).post("/console/sign-in", {"key": key, "next": where})
        assert answer.headers["Location"] == expected


async def test_every_page_has_the_policy_and_is_kept_nowhere(server: Server, alice: Browser) -> None:
    nobody = Browser(server.url)
    for answer in [await alice.get(path) for path in PAGES] + [await nobody.get("/console/sign-in")]:
        assert answer.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
            " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:|https?://", answer.text)


async def test_a_page_that_may_call_the_api_may_not_call_the_console(start_server: StartServer) -> None:
    origin = {"Origin": "https://app.example"}
    browser = Browser((await start_server(api={"cors_origins": ["*"]})).url, origin)
    assert "Access-Control-Allow-Origin" in (await browser.get("/api/v1/me")).headers
    for path in ("/console/sign-in", "/console/api/status/x", "/console/static/console.css"):
        assert "Access-Control-Allow-Origin" not in (await browser.get(path)).headers
    assert (await browser.sign_in(DEVELOPMENT_KEY)).status == 403


async def test_switched_off_there_is_nothing_at_the_console(start_server: StartServer) -> None:
    server = await start_server(console={"enabled": False})
    for path in ("/console", "/console/sign-in", "/console/static/console.css"):
        assert (await server.call("GET", path))[0] == 404
