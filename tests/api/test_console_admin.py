"""The owner's pages: only with the scope, only on the box, and what they do."""

from __future__ import annotations

import html
import re

import pytest
from aiohttp import web

from tests.api.conftest import Server, StartServer
from tests.api.console import Browser
from tests.api.test_console_sign_in import PUBLIC, make_key
from tests.api.test_status import claim
from umrgen_api.console.routes import CONSOLE_ROUTES
from umrgen_core.accounts import Accounts
from umrgen_core.agents import DEFAULT_SCOPES, Scope
from umrgen_core.queue_control import QueueControl

PAGES = ("/console/admin", "/console/admin/agents")
FORMS = [path.format(job_id="ext_1", key_id="1") for method, path, _ in CONSOLE_ROUTES
         if path.startswith("/console/admin") and method == "POST"]  # fmt: skip


async def sign_in_owner(server: Server, headers: dict[str, str] | None = None) -> Browser:
    accounts = Accounts(server.services.database)
    await accounts.create_agent("owner", {})
    minted = await accounts.create_key("owner", "console", list(Scope), None, {})
    browser = Browser(server.url, headers)
    await browser.sign_in(minted.key)
    return browser


@pytest.fixture
async def owner(server: Server) -> Browser:
    return await sign_in_owner(server)


async def refused(browser: Browser) -> set[int]:
    pages = [await browser.get(path) for path in PAGES]
    return {answer.status for answer in [*pages, *[await browser.post(path) for path in FORMS]]}


async def test_without_the_scope_nothing_of_the_owner_answers(server: Server) -> None:
    alice = Browser(server.url)
    await alice.sign_in(await make_key(server))
    assert await refused(alice) == {403}
    assert "/console/admin" not in (await alice.get("/console")).text


async def test_no_key_has_the_scope_unless_it_is_named_and_the_development_key_never(server: Server) -> None:
    await make_key(server)
    keys = await Accounts(server.services.database).list_keys()
    assert {key["scopes"] for key in keys} == {"upload generate read"} == {" ".join(DEFAULT_SCOPES)}
    await server.services.database.writer.run(lambda c: c.execute("UPDATE api_keys SET scopes = 'read admin'"))
    development = Browser(server.url)
    await development.sign_in("z-img-secret-key-2026")
    assert (await development.get("/console/queue")).status == 200
    assert await refused(development) == {403}


@pytest.mark.parametrize("headers", [
    {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-Proto": "http"}, {"Forwarded": "for=127.0.0.1"},
    {"Via": "1.1 proxy"}, {"X-Real-IP": "127.0.0.1"}, {"CF-Connecting-IP": "203.0.113.7"},
    {"True-Client-IP": "203.0.113.7"}, {"Host": "umrgen.example"}, {"Host": "127.0.0.1.evil.example:3088"},
])  # fmt: skip
async def test_what_came_through_a_proxy_is_refused_the_owners_pages(owner: Browser, headers: dict[str, str]) -> None:
    owner.headers = headers
    assert await refused(owner) == {403}
    assert "on the box itself only" in (await owner.get("/console/admin")).text


async def test_a_proxy_that_says_nothing_is_given_away_by_the_browser(start_server: StartServer) -> None:
    server = await start_server(api={"public_url": PUBLIC}, auth={"development_key": ""})
    owner = await sign_in_owner(server, {"Origin": PUBLIC})
    assert owner.cookie.startswith("__Host-")
    owner.headers = {}
    assert await refused(owner) == {403}  # nothing but the cookie tells


async def test_a_form_of_the_owner_counts_only_from_a_page_of_the_box(start_server: StartServer) -> None:
    plain = "http://umrgen.example"
    server = await start_server(api={"public_url": plain}, auth={"development_key": ""})
    owner = await sign_in_owner(server)
    owner.headers = {"Origin": plain}
    assert {(await owner.post(path)).status for path in FORMS} == {403}
    for origin in (server.url, server.url.replace("127.0.0.1", "localhost")):
        owner.headers = {"Origin": origin, "Host": origin.removeprefix("http://")}
        assert (await owner.post("/console/admin/queue", {"action": "resume"})).status == 303, origin


async def test_who_connects_from_elsewhere_is_refused_the_owners_pages_whatever_he_says(
    owner: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.headers = {"Host": "localhost"}
    for peer in ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8::1", "", None):
        monkeypatch.setattr(web.Request, "remote", peer)
        assert await refused(owner) == {403}, peer


async def test_the_owner_may_allow_proxies(start_server: StartServer) -> None:
    server = await start_server(
        console={"admin_through_proxy": True}, api={"public_url": PUBLIC}, auth={"development_key": ""}
    )
    browser = await sign_in_owner(server)
    browser.headers = {"X-Forwarded-For": "203.0.113.7"}
    assert (await browser.get("/console/admin")).status == 200


async def test_loopback_by_any_of_its_names_is_the_box(owner: Browser) -> None:
    for host in ("localhost", "localhost:3088", "127.0.0.1:3088", "127.0.0.1", "[::1]:3088", "[::1]"):
        owner.headers = {"Host": host}
        assert (await owner.get("/console/admin")).status == 200


async def test_the_owner_sees_the_jobs_of_all_and_no_prompt(server: Server, owner: Browser) -> None:
    job_id = (await server.generate(prompt="a secret star"))[1]["job_id"]
    for path in ("/console/admin", "/console/admin?agent=development", "/console/admin?state=queued&part=1"):
        text = (await owner.get(path)).text
        assert job_id in text
        assert "secret star" not in text
    assert job_id not in (await owner.get("/console/admin?agent=owner")).text
    unknown = await owner.get("/console/admin?agent=<b>nobody")
    assert (unknown.status, "&lt;b&gt;nobody" in unknown.text) == (400, True)


async def test_the_owner_pauses_drains_and_resumes_the_queue(server: Server, owner: Browser) -> None:
    control = QueueControl(server.services.database)
    for action, paused, draining in (("pause", True, False), ("drain", True, True), ("resume", False, False)):
        assert (await owner.post("/console/admin/queue", {"action": action})).status == 303
        state = await control.read()
        assert (state.paused, state.draining) == (paused, draining)
    assert (await owner.post("/console/admin/queue", {"action": "burn"})).status == 400


async def test_the_owner_cancels_a_job_and_runs_a_failed_one_again(server: Server, owner: Browser) -> None:
    job_id = (await server.generate())[1]["job_id"]
    assert (await owner.post(f"/console/admin/jobs/{job_id}", {"action": "cancel"})).status == 303
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["state"] == "cancelled"
    failed = (await server.generate())[1]["job_id"]
    await server.services.claims.fail(await claim(server), "model_error", "Broken.", retryable=True)
    assert (await owner.post(f"/console/admin/jobs/{failed}", {"action": "retry"})).status == 303
    states = [job["state"] for job in (await server.call("GET", "/api/v1/jobs"))[1]["jobs"]]
    assert states == ["queued", "failed", "cancelled"]
    assert (await owner.post("/console/admin/jobs/ext_no", {"action": "retry"})).status == 400


async def test_the_owner_makes_agents_and_keys_and_each_key_is_shown_once(server: Server, owner: Browser) -> None:
    made = await owner.post("/console/admin/agents", {"name": "carol", "concurrent_jobs": "3", "rate_per_minute": ""})
    assert "Do not reload this page" in made.text
    first = re.search(r"umr_\w+", made.text)[0]
    assert first not in (await owner.get("/console/admin/agents")).text
    assert (await Browser(server.url).sign_in(first)).status == 303
    made = await owner.post("/console/admin/keys", {"agent": "carol", "scope_read": "1", "days": "2"})
    second = re.search(r"umr_\w+", made.text)[0]
    assert await scopes_of(server, second) == {"read"}
    await owner.post("/console/admin/limits", {"agent": "carol", "concurrent_jobs": "5"})
    agent = await server.services.agents.find_by_key(first)
    assert agent is not None
    assert agent.limits.concurrent_jobs == 5
    rotated = await owner.post(f"/console/admin/keys/{agent.key_id}", {"action": "rotate", "days": "1"})
    assert await scopes_of(server, re.search(r"umr_\w+", rotated.text)[0]) == set(DEFAULT_SCOPES)
    assert (await owner.post(f"/console/admin/keys/{agent.key_id}", {"action": "revoke"})).status == 303
    assert await server.services.agents.find_by_key(first) is None


async def scopes_of(server: Server, key: str) -> frozenset[str]:
    agent = await server.services.agents.find_by_key(key)
    assert agent is not None
    return agent.scopes


@pytest.mark.parametrize(("path", "fields", "said"), [
    ("agents", {"name": "<i>"}, "1 to 64 letters"),
    ("agents", {"name": "owner"}, "already"),
    ("agents", {"name": "dave", "concurrent_jobs": "-1"}, "whole number"),
    ("keys", {"agent": "owner"}, "at least one scope"),
    ("keys", {"agent": "<i>", "scope_read": "1"}, "no agent"),
    ("keys/999", {"action": "revoke"}, "no key"),
    ("keys/1", {"action": "revoke"}, "development key"),
    ("limits", {"agent": "owner", "reads_per_minute": "99999999999999999999"}, "whole number"),
])  # fmt: skip
async def test_what_cannot_be_is_said_on_the_page(owner: Browser, path: str, fields: dict[str, str], said: str) -> None:
    answer = await owner.post(f"/console/admin/{path}", fields)
    assert answer.status == 400
    assert said in html.unescape(answer.text.split('role="alert">', 1)[1].split("</p>", 1)[0])
    assert "<i>" not in answer.text
