"""What belongs to another agent answers exactly as if it did not exist: every route, every kind of thing, both ways.

Answers are compared as they came over the wire, header for header, but for X-Request-ID, Date and the name asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import aiohttp
import pytest

from tests.api.conftest import Server, StartServer
from tests.api.console import sign_in
from tests.api.test_status import accept, claim, complete_next
from tests.conftest import picture_bytes
from umrgen_api import upkeep
from umrgen_api.app import ROUTES
from umrgen_api.console.routes import CONSOLE_ROUTES
from umrgen_core.keys import mint_key

ADMIN_ROUTES = [(method, path) for method, path, _ in CONSOLE_ROUTES if path.startswith("/console/admin")]
CHANGING = (b"x-request-id:", b"date:")
JSON = b"Content-Type: application/json\r\n"
WIDE = {"concurrent_jobs": 1000, "rate_per_minute": 10**6, "reads_per_minute": 10**6}
DIRECTIONS = [("alice", "bob"), ("bob", "alice")]


@dataclass
class Tenant:
    """An agent and what it has, by kind."""

    name: str
    key: str
    own: Server
    cookie: str = ""
    form_token: str = ""
    jobs: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def session(self) -> str:
        return f"sid_ext_{self.name}"

    @property
    def authorization(self) -> bytes:
        key = f"Authorization: Bearer {self.key}\r\n"
        console = f"Cookie: {self.cookie}\r\nX-Form-Token: {self.form_token}\r\n" if self.cookie else ""
        return (key + console).encode()


World = dict[str, Tenant]


@asynccontextmanager
async def open_world(start_server: StartServer, **sections: dict[str, object]) -> AsyncIterator[tuple[Server, World]]:
    """Two agents with everything that an agent can have, in every state."""
    server = await start_server(limits=WIDE, auth={"failures_per_minute": 0}, **sections)
    world: World = {}
    async with AsyncExitStack() as exits:
        for number, name in enumerate(("alice", "bob")):
            key = mint_key()
            await server.services.agents.create_agent(name, f"sid_ext_{name}", key)
            session = aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {key}"})
            exits.push_async_callback(session.close)
            world[name] = Tenant(name, key, Server(server.app, server.url, session))
            world[name].cookie, world[name].form_token = await sign_in(server.url, key)
            await _fill(world[name], number)
        for tenant in world.values():  # last: until then a claim would take them
            await _leave_queued(tenant)
            await _expire(tenant)
        yield server, world


async def _fill(tenant: Tenant, number: int) -> None:
    own, services = tenant.own, tenant.own.services
    for place, kind in enumerate(("live", "pinned", "expired")):
        picture = picture_bytes(64, 64, seed=10 * number + place)
        tenant.references[kind] = (await own.upload(picture))[1]["filename"]
    for kind in ("live", "pinned", "expired"):
        job_id = await accept(own)
        tenant.outputs[kind] = (await complete_next(own)).filename
        tenant.jobs["completed" if kind == "live" else f"completed, its output {kind}"] = job_id
    tenant.jobs["failed"] = await accept(own)
    await services.claims.fail(await claim(own), "model_error", "Broken.", retryable=False)
    tenant.jobs["cancelled"] = await accept(own)
    await own.call("DELETE", f"/api/v1/jobs/{tenant.jobs['cancelled']}")
    tenant.jobs["running"] = await accept(own)
    await claim(own)
    tenant.jobs["being cancelled"] = await accept(own)
    await claim(own)
    await own.call("DELETE", f"/api/v1/jobs/{tenant.jobs['being cancelled']}")


async def _leave_queued(tenant: Tenant) -> None:
    pins = [tenant.references["pinned"], f"/outputs/{tenant.session}/{tenant.outputs['pinned']}"]
    tenant.jobs["queued"] = await accept(tenant.own, reference_images=pins)


async def _expire(tenant: Tenant) -> None:
    now_us, job_id = tenant.own.services.clock.wall_us(), tenant.jobs["completed, its output expired"]
    for table, name in (("references", tenant.references["expired"]), ("outputs", tenant.outputs["expired"])):
        statement = f"UPDATE \"{table}\" SET expires_at_us = {now_us} WHERE filename = '{name}'"
        await tenant.own.services.database.writer.run(lambda c, statement=statement: c.execute(statement))
    statement = f"UPDATE jobs SET expires_at_us = {now_us} WHERE id = '{job_id}'"
    await tenant.own.services.database.writer.run(lambda c: c.execute(statement))


@pytest.fixture(autouse=True)
def _nothing_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has expired stays in the store, so that it can be asked for."""
    monkeypatch.setattr(upkeep, "EXPIRY_INTERVAL_S", 3600)


def another(name: str) -> str:
    """A name of the same form that nothing has."""
    digit = next(place for place in reversed(range(len(name) - 4)) if name[place].isdigit())
    return name[:digit] + str((int(name[digit]) + 1) % 10) + name[digit + 1 :]


async def ask(server: Server, head: bytes, body: bytes = b"") -> bytes:
    """Everything that comes back for a request line with its headers."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    writer.write(head + b"Host: x\r\nConnection: close\r\n" + length + b"\r\n" + body)
    async with asyncio.timeout(10):
        heard = await reader.read()
    writer.close()
    return heard


def without_changing(heard: bytes, name: str) -> bytes:
    """An answer without what differs from one request to the next."""
    head, _, body = heard.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(CHANGING)]
    return (b"\r\n".join(kept) + b"\r\n\r\n" + body).replace(name.encode(), b"NAME")


@dataclass(frozen=True)
class Question:
    """A request with NAME in it; what it is asked about, and the statuses that may answer it."""

    head: str
    names: dict[str, str]
    statuses: tuple[int, ...]
    body: str = ""

    def fill(self, name: str, extra: bytes) -> tuple[bytes, bytes]:
        head = self.head.replace("NAME", name).encode() + extra
        return head, self.body.replace("NAME", name).encode()


def about_jobs(method: str, path: str) -> Callable[[Tenant, Tenant], Iterator[Question]]:
    def ask_about(owner: Tenant, _: Tenant) -> Iterator[Question]:
        for query in ("", "?erase=true", "?erase=false", "?erase=maybe", "?wait=0", "?wait=5&until=done", "?x=y"):
            yield Question(
                f"{method} {path}{query} HTTP/1.1\r\n", owner.jobs, (404, 400) if "maybe" in query else (404,)
            )

    return ask_about


def about_pages(owner: Tenant, _: Tenant) -> Iterator[Question]:
    for query in ("", "&limit=1", "&state=completed"):
        yield Question(f"GET /api/v1/jobs?cursor=NAME{query} HTTP/1.1\r\n", owner.jobs, (400,))


def about_deleting(owner: Tenant, _: Tenant) -> Iterator[Question]:
    for kind in (owner.references, owner.outputs, owner.jobs):
        yield Question("DELETE /api/v1/references/NAME HTTP/1.1\r\n", kind, (404,))


def about_generating(owner: Tenant, stranger: Tenant) -> Iterator[Question]:
    for shelf, kinds in (("references", owner.references), ("outputs", owner.outputs)):
        for session in (owner.session, stranger.session):
            for form in (
                f"/{shelf}/{session}/NAME",
                f"https://a.b/{shelf}/{session}/NAME?session_id={session}",
                "NAME",
            ):
                for images in ([form], [stranger.references["live"], form]):
                    body = json.dumps({"prompt": "a star", "reference_images": images})
                    yield Question("POST /api/v1/generate HTTP/1.1\r\n" + JSON.decode(), kinds, (400,), body)


FILE_HEADERS = ["", "Range: bytes=0-0\r\n", "Range: bytes=999999999-\r\n", "If-None-Match: *\r\n", 'If-Match: "a"\r\n']


def about_files(shelf: str) -> Callable[[Tenant, Tenant], Iterator[Question]]:
    def ask_about(owner: Tenant, stranger: Tenant) -> Iterator[Question]:
        kinds = owner.references if shelf == "references" else owner.outputs
        gone = {"expired": kinds["expired"]}
        for method in ("GET", "HEAD"):
            for headers in FILE_HEADERS:
                for session, query, statuses, names in (
                    (owner.session, "", (403,), kinds),
                    (owner.session, f"?session_id={stranger.session}", (403,), kinds),
                    (stranger.session, f"?session_id={owner.session}", (403, 404), kinds),
                    (stranger.session, f"?session_id={stranger.session}", (404,), kinds),
                    (stranger.session, "", (403, 404), kinds),  # 404 for the stranger's own key
                    (owner.session, f"?session_id={owner.session}", (404,), gone),
                ):
                    yield Question(f"{method} /{shelf}/{session}/NAME{query} HTTP/1.1\r\n{headers}", names, statuses)

    return ask_about


FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


def about_console_jobs(path: str, statuses: tuple[int, ...] = (404,)) -> Callable[[Tenant, Tenant], Iterator[Question]]:
    def ask_about(owner: Tenant, _: Tenant) -> Iterator[Question]:
        for query in ("", "?part=1"):
            yield Question(f"GET {path}{query} HTTP/1.1\r\n", owner.jobs, statuses)

    return ask_about


def about_console_forms(path: str) -> Callable[[Tenant, Tenant], Iterator[Question]]:
    def ask_about(owner: Tenant, stranger: Tenant) -> Iterator[Question]:
        body = f"form_token={stranger.form_token}"
        yield Question(f"POST {path} HTTP/1.1\r\n{FORM}", owner.jobs, (404,), body)

    return ask_about


def about_filling_in(owner: Tenant, _: Tenant) -> Iterator[Question]:
    for query in ("use=NAME", "with=NAME"):
        yield Question(f"GET /console?{query} HTTP/1.1\r\n", owner.jobs, (200,))


def about_posting(owner: Tenant, stranger: Tenant) -> Iterator[Question]:
    part = '--B\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    fields = [("form_token", stranger.form_token), ("prompt", "a star"), ("reference_images", "NAME")]
    body = "".join(part.format(*field) for field in fields) + "--B--\r\n"
    for kinds in (owner.references, owner.outputs):
        yield Question(
            "POST /console HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=B\r\n", kinds, (400,), body
        )


def about_console_files(shelf: str) -> Callable[[Tenant, Tenant], Iterator[Question]]:
    def ask_about(owner: Tenant, _: Tenant) -> Iterator[Question]:
        kinds = owner.references if shelf == "references" else owner.outputs
        for head in ("GET /console/{}/NAME", "HEAD /console/{}/NAME", "GET /console/{}/NAME?download"):
            yield Question(f"{head.format(shelf)} HTTP/1.1\r\n", kinds, (404,))

    return ask_about


def at_the_console(
    case: Callable[[Tenant, Tenant], Iterator[Question]],
) -> Callable[[Tenant, Tenant], Iterator[Question]]:
    """Some of the questions of an API's route, of the console's: behind the session it is the same handler."""

    def ask_about(owner: Tenant, stranger: Tenant) -> Iterator[Question]:
        for question in islice(case(owner, stranger), 3):
            yield replace(question, head=question.head.replace("/api/v1/", "/console/api/"))

    return ask_about


def nothing(_: Tenant, __: Tenant) -> Iterator[Question]:
    """No name goes in: what comes out is looked at by a test of its own, named beside the route."""
    return iter(())


CASES: dict[tuple[str, str], Callable[[Tenant, Tenant], Iterator[Question]]] = {
    ("GET", "/healthz"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/readyz"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/llms.txt"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/skill.md"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/docs"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/docs/openapi.json"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/docs/{asset}"): nothing,  # files of the package, the same for everybody
    ("GET", "/api/v1/openapi.json"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/api/v1/models"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("POST", "/api/v1/upload-reference"): nothing,  # test_the_same_bytes_of_another_are_new_bytes
    ("GET", "/api/v1/references"): nothing,  # test_a_list_holds_what_is_ones_own
    ("DELETE", "/api/v1/references/{filename}"): about_deleting,
    ("POST", "/api/v1/generate"): about_generating,  # and test_the_idempotency_key_of_another_is_a_new_one
    ("GET", "/api/v1/status/{job_id}"): about_jobs("GET", "/api/v1/status/NAME"),
    ("GET", "/api/v1/events/{job_id}"): about_jobs("GET", "/api/v1/events/NAME"),
    ("GET", "/api/v1/jobs"): about_pages,  # and test_a_list_holds_what_is_ones_own
    ("GET", "/api/v1/me"): nothing,  # test_a_list_holds_what_is_ones_own
    ("DELETE", "/api/v1/jobs/{job_id}"): about_jobs("DELETE", "/api/v1/jobs/NAME"),
    ("POST", "/v1/images/generations"): nothing,  # no name goes in; test_openai.py: the idempotency key of another
    ("POST", "/v1/images/edits"): nothing,  # no name goes in; test_openai.py: the idempotency key of another
    ("GET", "/v1/models"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/v1/models/{model}"): nothing,  # test_what_belongs_to_nobody_is_the_same_for_everybody
    ("GET", "/references/{session_id}/{filename}"): about_files("references"),
    ("GET", "/outputs/{session_id}/{filename}"): about_files("outputs"),
    ("GET", "/console"): about_filling_in,
    ("GET", "/console/"): nothing,  # leads to the one above, whoever asks
    ("POST", "/console"): about_posting,
    ("GET", "/console/sign-in"): nothing,  # test_console_sign_in.py
    ("POST", "/console/sign-in"): nothing,  # test_console_sign_in.py
    ("POST", "/console/sign-out"): nothing,  # test_console_sign_in.py
    ("GET", "/console/static/{asset}"): nothing,  # files of the package, the same for everybody
    ("GET", "/console/gallery"): about_console_jobs("/console/gallery?cursor=NAME", (400,)),
    ("GET", "/console/queue"): nothing,  # no name goes in; test_console_pages.py: what others have is on no page
    ("GET", "/console/jobs/{job_id}"): about_console_jobs("/console/jobs/NAME"),
    ("POST", "/console/jobs/{job_id}/cancel"): about_console_forms("/console/jobs/NAME/cancel"),
    ("POST", "/console/jobs/{job_id}/erase"): about_console_forms("/console/jobs/NAME/erase"),
    ("GET", "/console/references/{filename}"): about_console_files("references"),
    ("GET", "/console/outputs/{filename}"): about_console_files("outputs"),
    **dict.fromkeys(ADMIN_ROUTES, nothing),  # the owner's, over all agents: test_console_admin.py
    ("POST", "/console/api/upload-reference"): nothing,  # the handler of the API; no name goes in
    ("DELETE", "/console/api/references/{filename}"): at_the_console(about_deleting),
    ("POST", "/console/api/generate"): at_the_console(about_generating),
    ("GET", "/console/api/status/{job_id}"): at_the_console(about_jobs("GET", "/api/v1/status/NAME")),
    ("GET", "/console/api/events/{job_id}"): at_the_console(about_jobs("GET", "/api/v1/events/NAME")),
    ("DELETE", "/console/api/jobs/{job_id}"): at_the_console(about_jobs("DELETE", "/api/v1/jobs/NAME")),
}


def test_every_route_has_a_case() -> None:
    assert {(method, path) for method, path, _ in (*ROUTES, *CONSOLE_ROUTES)} == set(CASES)


async def read_store(server: Server) -> list[tuple[object, ...]]:
    """Every row that an agent may own."""
    reader, rows = server.services.database.reader, []
    for table in ("jobs", "references", "outputs", "job_references", "replays", "agents", "api_keys"):
        rows += [tuple(row) for row in await reader.all(f'SELECT * FROM "{table}" ORDER BY rowid')]
    return rows


async def test_anothers_thing_answers_as_if_it_did_not_exist(start_server: StartServer) -> None:
    async with open_world(start_server) as (server, world):
        before, asked = await read_store(server), 0
        for owner, stranger in ((world[a], world[b]) for a, b in DIRECTIONS):
            for case in CASES.values():
                for question in case(owner, stranger):
                    for kind, name in question.names.items():
                        for key in (stranger.authorization, b""):
                            there, missing = [
                                without_changing(await ask(server, *question.fill(which, key)), which)
                                for which in (name, another(name))
                            ]
                            assert there == missing, (question, kind)
                            status = int(there.split()[1])
                            refused = () if key else (303, 401)
                            assert status in (*question.statuses, *refused), question
                            asked += 1
        assert await read_store(server) == before
        assert asked > 1000


async def test_where_a_key_is_required_the_session_of_another_opens_nothing(start_server: StartServer) -> None:
    async with open_world(start_server, files={"require_key": True}) as (server, world):
        for owner, stranger in ((world[a], world[b]) for a, b in DIRECTIONS):
            for shelf, kinds in (("references", owner.references), ("outputs", owner.outputs)):
                for name in kinds.values():
                    for key in (stranger.authorization, b""):
                        heard = []
                        for which in (name, another(name)):
                            path = f"/{shelf}/{owner.session}/{which}?session_id={owner.session}"
                            answer = await ask(server, f"GET {path} HTTP/1.1\r\n".encode() + key)
                            heard.append(without_changing(answer, which))
                        assert heard[0] == heard[1]
                        assert b" 403 " in heard[0]


async def list_names(server: Server, tenant: Tenant) -> set[str]:
    heard = await ask(server, b"GET /api/v1/references HTTP/1.1\r\n" + tenant.authorization)
    return {reference["filename"] for reference in json.loads(heard.partition(b"\r\n\r\n")[2])["references"]}


async def test_a_list_holds_what_is_ones_own(start_server: StartServer) -> None:
    async with open_world(start_server) as (server, world):
        for tenant in world.values():
            assert await list_names(server, tenant) == {tenant.references["live"], tenant.references["pinned"]}
        newcomer = Tenant("carol", mint_key(), server)
        await server.services.agents.create_agent("carol", newcomer.session, newcomer.key)
        heard = await ask(server, b"GET /api/v1/references HTTP/1.1\r\n" + newcomer.authorization)
        assert heard.endswith(b'\r\n\r\n{"success":true,"references":[]}')
        heard = await ask(server, b"GET /api/v1/jobs HTTP/1.1\r\n" + newcomer.authorization)
        assert heard.endswith(b'\r\n\r\n{"success":true,"jobs":[],"next_cursor":null}')
        heard = await ask(server, b"GET /api/v1/me HTTP/1.1\r\n" + newcomer.authorization)
        assert heard.endswith(b'"concurrent_jobs":0},"current_jobs":[]}')
        for tenant in world.values():
            heard = await ask(server, b"GET /api/v1/jobs?limit=100 HTTP/1.1\r\n" + tenant.authorization)
            listed = {job["job_id"] for job in json.loads(heard.partition(b"\r\n\r\n")[2])["jobs"]}
            assert listed == set(tenant.jobs.values()) & listed
            assert len(listed) >= len(tenant.jobs) - 1


async def test_what_belongs_to_nobody_is_the_same_for_everybody(start_server: StartServer) -> None:
    async with open_world(start_server) as (server, world):
        public = (b"/healthz", b"/readyz", b"/llms.txt", b"/skill.md", b"/docs", b"/docs/openapi.json")
        for path in (*public, b"/api/v1/models", b"/api/v1/openapi.json", b"/v1/models", b"/v1/models/tiny-klein"):
            strangers = [b""] if path in public else []
            keys = [*strangers, *(tenant.authorization for tenant in world.values())]
            heard = [await ask(server, b"GET %s HTTP/1.1\r\n" % path + key) for key in keys]
            assert len({without_changing(answer, "no name") for answer in heard}) == 1


def form_of(picture: bytes) -> tuple[bytes, bytes]:
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    return b"Content-Type: multipart/form-data; boundary=B\r\n", head + picture + b"\r\n--B--\r\n"


async def test_the_same_bytes_of_another_are_new_bytes(start_server: StartServer) -> None:
    picture = picture_bytes(64, 64, seed=99)
    header, body = form_of(picture)
    async with open_world(start_server) as (server, world):
        for owner, stranger in ((world[a], world[b]) for a, b in DIRECTIONS):

            async def upload(stranger: Tenant = stranger) -> bytes:
                head = b"POST /api/v1/upload-reference HTTP/1.1\r\n" + header + stranger.authorization
                heard = await ask(server, head, body)
                (filename,) = re.findall(rb'"filename":"([^"]+)"', heard)
                delete = b"DELETE /api/v1/references/%s HTTP/1.1\r\n" % filename
                assert b" 200 " in await ask(server, delete + stranger.authorization)
                return without_changing(heard, filename.decode())

            before = await upload()
            assert (await owner.own.upload(picture))[0] == 200
            assert await upload() == before
            kept = (await list_names(server, owner)) - {owner.references["live"], owner.references["pinned"]}
            assert len(kept) == 1
            await owner.own.call("DELETE", f"/api/v1/references/{kept.pop()}")


async def test_the_idempotency_key_of_another_is_a_new_one(start_server: StartServer) -> None:
    async with open_world(start_server) as (server, world):
        for owner, stranger in ((world[a], world[b]) for a, b in DIRECTIONS):
            asked, other = b'{"prompt": "a star"}', b'{"prompt": "another body"}'
            for number, body in enumerate((asked, other)):
                taken, fresh = f"{owner.name}-taken-{number}", f"{owner.name}-fresh-{number}"
                first = await submit(server, owner, taken, asked)
                assert b"Idempotent-Replayed" in await submit(server, owner, taken, asked)
                assert b"Idempotent-Replayed" not in first
                assert await submit(server, stranger, taken, body) == await submit(server, stranger, fresh, body)


async def submit(server: Server, tenant: Tenant, key: str, body: bytes) -> bytes:
    """The answer to a generate under an Idempotency-Key, its job cancelled at once."""
    head = b"POST /api/v1/generate HTTP/1.1\r\n" + JSON + f"Idempotency-Key: {key}\r\n".encode()
    heard = await ask(server, head + tenant.authorization, body)
    (job_id,) = re.findall(rb'"job_id":"([^"]+)"', heard)
    await tenant.own.call("DELETE", f"/api/v1/jobs/{job_id.decode()}")
    return without_changing(heard, job_id.decode())


async def test_one_agents_limit_is_no_limit_for_the_other(start_server: StartServer) -> None:
    server = await start_server()
    heard = []
    for name in ("alice", "bob"):
        key = mint_key()
        await server.services.agents.create_agent(name, f"sid_ext_{name}", key)
        head = b"POST /api/v1/generate HTTP/1.1\r\n" + JSON + Tenant(name, key, server).authorization
        heard += [await ask(server, head, b'{"prompt": "a star"}') for _ in range(2)]
    assert [answer.split()[1] for answer in heard] == [b"202", b"429", b"202", b"429"]
    assert re.findall(rb'"job_id":"([^"]+)"', heard[0])[0] not in heard[3]
