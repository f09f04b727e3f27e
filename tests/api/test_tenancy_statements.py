"""No timing tells what another agent has: the work done for it is the work done for nothing.

Time itself is too noisy to test, so the work is: every statement that the reader and the writer run for a
request, in order, with the plans that SQLite makes for them, every digest of a key and every look at a file.
A row that is found and then not shown costs the microseconds of reading it, in the same statement by the same plan.

Where the work does differ it hangs on what was sent alone, never on what the store holds: a key without a
valid checksum is not looked up at all, a URL of another session is refused before any look-up, and a stranger
is refused before anything else.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tests.api.conftest import Server, StartServer
from tests.api.test_tenancy import CASES, DIRECTIONS, Question, Tenant, another, ask, form_of, open_world
from tests.conftest import picture_bytes
from umrgen_api import upkeep
from umrgen_core import agent_store
from umrgen_core.keys import digest_key, mint_key
from umrgen_core.reader import Reader
from umrgen_core.sqlite import Connection
from umrgen_core.verified_files import VerifiedFiles
from umrgen_core.writer import Writer

Trace = list[str]
WITHOUT_KEY = ("/healthz", "/readyz", "/llms.txt", "/skill.md", "/docs", "/console")
"""Routes that take no key; the console's take a cookie."""


class Recorder:
    """What the store is asked on behalf of requests; the web tier's own rounds are left out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trace: Trace = []
        self._lock = threading.Lock()
        self._reader, self._writer, self._look = Reader.run, Writer.run, VerifiedFiles.is_whole
        recorder = self

        async def read(reader: Reader, work: Callable[[Connection], Any]) -> Any:
            return await recorder._reader(reader, recorder.traced("read", work) if serves_request() else work)

        async def write(writer: Writer, work: Callable[[Connection], Any]) -> Any:
            return await recorder._writer(writer, recorder.traced("write", work) if serves_request() else work)

        def digest(key: str) -> str:
            if serves_request():
                recorder.note("digest", "")
            return digest_key(key)

        def look(files: VerifiedFiles, *asked: Any, **options: Any) -> bool:
            if serves_request():
                recorder.note("file", "")
            return recorder._look(files, *asked, **options)

        monkeypatch.setattr(VerifiedFiles, "is_whole", look)
        monkeypatch.setattr(Reader, "run", read)
        monkeypatch.setattr(Writer, "run", write)
        monkeypatch.setattr(agent_store, "digest_key", digest)

    def note(self, kind: str, sql: str) -> None:
        with self._lock:
            self.trace.append(f"{kind}: {without_values(sql)}")

    def traced(self, kind: str, work: Callable[[Connection], Any]) -> Callable[[Connection], Any]:
        """`work` with every statement noted as SQLite runs it."""

        def run(connection: Connection) -> Any:
            connection.set_trace_callback(lambda sql: self.note(kind, sql))
            try:
                return work(connection)
            finally:
                connection.set_trace_callback(None)

        return run

    def take(self) -> Trace:
        """What was noted since the last call."""
        with self._lock:
            taken, self.trace = self.trace, []
        return taken


def serves_request() -> bool:
    """Whether the code that runs now does so for a request: its id is bound then."""
    return "request_id" in structlog.contextvars.get_contextvars()


def without_values(sql: str) -> str:
    """A statement without comments, spacing and the values that SQLite writes into a trace."""
    plain = " ".join(re.sub(r"--[^\n]*", "", sql).split())
    return re.sub(r"'(?:[^']|'')*'|(?<![\w])-?\d+(?:\.\d+)?|:\w+|NULL", "?", plain)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(upkeep, "EXPIRY_INTERVAL_S", 3600)  # what has expired stays
    return Recorder(monkeypatch)


def questions(owner: Tenant, stranger: Tenant) -> Iterator[tuple[tuple[str, str], Question]]:
    for route, case in CASES.items():
        for question in case(owner, stranger):
            yield route, question


async def test_anothers_thing_costs_the_statements_of_nothing(start_server: StartServer, recorder: Recorder) -> None:
    async with open_world(start_server) as (server, world):
        seen: dict[tuple[str, str], set[str]] = {}
        for owner, stranger in ((world[a], world[b]) for a, b in DIRECTIONS):
            for route, question in questions(owner, stranger):
                for kind, name in question.names.items():
                    traces = []
                    for which in (name, another(name)):
                        recorder.take()
                        await ask(server, *question.fill(which, stranger.authorization))
                        traces.append(recorder.take())
                    assert traces[0] == traces[1], (question, kind)
                    seen.setdefault(route, set()).update(traces[0])
        for route, words in {  # the look-ups themselves are among them: the recorder is not blind
            ("GET", "/api/v1/status/{job_id}"): ["digest", "FROM api_keys", "read: SELECT j.*"],
            ("DELETE", "/api/v1/jobs/{job_id}"): ["write: SELECT j.*"],
            ("DELETE", "/api/v1/references/{filename}"): ['write: SELECT r.*, a.session_id FROM "references"'],
            ("POST", "/api/v1/generate"): ['write: SELECT r.*, a.session_id FROM "references"', "FROM outputs"],
            ("GET", "/references/{session_id}/{filename}"): ['read: SELECT r.*, a.session_id FROM "references"'],
            ("GET", "/outputs/{session_id}/{filename}"): ["read: SELECT o.*"],
        }.items():
            assert all(any(word in line for line in seen[route]) for word in words), (route, seen[route])


async def test_anothers_thing_is_looked_for_by_the_plan_of_nothing(start_server: StartServer) -> None:
    """SQLite plans a statement before it sees a value: one text is one plan, and each is a search by an index."""
    async with open_world(start_server) as (server, world):
        database = server.services.database
        for statement, table in (("get_job", "j"), ("find_reference", "r"), ("find_output", "o"), ("find_key", "k")):
            sql = getattr(database.statements, statement).sql
            (parameter,) = re.findall(r"(?<!:):(\w+)", sql)
            owned = {"get_job": "jobs", "find_reference": "references", "find_output": "outputs"}.get(statement)
            names = list(getattr(world["alice"], owned).values()) if owned else [digest_key(world["alice"].key)]
            plans = set()
            for name in (*names, *map(another, names)):
                rows = await database.reader.all(f"EXPLAIN QUERY PLAN {sql}", **{parameter: name})
                plans.add("\n".join(row["detail"] for row in rows))
            assert len(plans) == 1, plans
            assert re.search(rf"^SEARCH {table} USING .*INDEX", plans.pop(), re.MULTILINE)


async def test_the_bytes_and_the_idempotency_key_of_another_cost_the_statements_of_new_ones(
    start_server: StartServer, recorder: Recorder
) -> None:
    async with open_world(start_server) as (server, world):
        owner, stranger = world["alice"], world["bob"]
        await owner.own.upload(picture_bytes(64, 64, seed=70))
        body = {"prompt": "a star"}
        await owner.own.call("POST", "/api/v1/generate", json=body, headers={"Idempotency-Key": "theirs"})
        traces = []
        for seed, key in ((70, "theirs"), (71, "nobodys")):
            recorder.take()
            header, content = form_of(picture_bytes(64, 64, seed=seed))
            await ask(server, b"POST /api/v1/upload-reference HTTP/1.1\r\n" + header + stranger.authorization, content)
            head = b"POST /api/v1/generate HTTP/1.1\r\nContent-Type: application/json\r\nIdempotency-Key: "
            await ask(server, head + key.encode() + b"\r\n" + stranger.authorization, json.dumps(body).encode())
            traces.append(recorder.take())
        assert traces[0] == traces[1]
        assert any("FROM replays" in line for line in traces[0])
        assert any('INSERT INTO "references"' in line for line in traces[0])


async def mint_dead_key(server: Server, column: str) -> str:
    """A key of an agent with jobs and references, expired or revoked a moment ago."""
    key, now_us = mint_key(), server.services.clock.wall_us()
    await server.services.agents.create_agent(column, f"sid_ext_{column}", key)
    statement = f"UPDATE api_keys SET {column} = {now_us} WHERE sha256 = '{digest_key(key)}'"
    await server.services.database.writer.run(lambda c: c.execute(statement))
    return key


async def test_a_key_that_was_good_once_costs_the_work_of_one_that_never_was(
    start_server: StartServer, recorder: Recorder
) -> None:
    """Unknown, expired and revoked: one digest, one look-up, the same answer, on every route that asks for a key."""
    async with open_world(start_server) as (server, world):
        dead = [await mint_dead_key(server, column) for column in ("expires_at_us", "revoked_at_us")]
        owner = world["alice"]
        for method, path in CASES:
            if path.startswith(WITHOUT_KEY):
                continue
            names = {"job_id": "x", "filename": owner.references["live"], "session_id": owner.session, "model": "x"}
            place = path.format(**names)
            works, answers = [], []
            for key in (mint_key(), *dead):
                recorder.take()
                head = f"{method} {place} HTTP/1.1\r\nAuthorization: Bearer {key}\r\nX-Request-ID: a\r\n"
                answers.append(re.sub(rb"Date: [^\r]*", b"", await ask(server, head.encode())))
                works.append(recorder.take())
            assert works[0] == works[1] == works[2], (method, path)
            assert len(set(answers)) == 1
            assert [line.partition(":")[0] for line in works[0]] == ["digest", "read"]
            assert "FROM api_keys" in works[0][1]


async def test_on_files_the_key_of_another_agent_costs_the_work_of_an_unknown_one(
    start_server: StartServer, recorder: Recorder
) -> None:
    async with open_world(start_server) as (server, world):
        owner, stranger = world["alice"], world["bob"]
        works = []
        for key in (mint_key(), stranger.key):
            recorder.take()
            path = f"/references/{owner.session}/{owner.references['live']}"
            await ask(server, f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n".encode())
            works.append(recorder.take())
        assert works[0] == works[1]
        assert len(works[0]) == 2


async def test_a_key_with_a_typing_error_costs_no_look_up_whoever_it_belongs_to(
    start_server: StartServer, recorder: Recorder
) -> None:
    """This differs from an unknown key, but by the key's own letters alone: anybody can reckon the checksum."""
    async with open_world(start_server) as (server, world):
        for good in (world["alice"].key, mint_key()):
            for typed in (good[:-1] + ("a" if good[-1] != "a" else "b"), good[:-1], good.upper(), good[4:]):
                recorder.take()
                await ask(server, f"GET /api/v1/references HTTP/1.1\r\nAuthorization: Bearer {typed}\r\n".encode())
                assert recorder.take() == []
