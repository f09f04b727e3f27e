from __future__ import annotations

import time

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_common import ask_with
from tests.conftest import picture_bytes
from umrgen_api.rates import Rate, RateLimits
from umrgen_core.agents import Agent, AgentLimits, Scope
from umrgen_core.errors import RateLimit
from umrgen_core.keys import mint_key

REFERENCES = "/api/v1/references"


class Minute:
    """The time that the limiter sees; it stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_795_000_020.0


@pytest.fixture(autouse=True)
def minute(monkeypatch: pytest.MonkeyPatch) -> Minute:
    clock = Minute()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


def make_agent(agent_id: int = 1, writes: int = 3, reads: int = 5) -> Agent:
    limits = AgentLimits(1, writes, reads, 1, 1, 1)
    return Agent(agent_id, "alice", "sid_ext_alice", agent_id, frozenset(Scope), limits, frozenset())


def take(rates: RateLimits, agent: Agent, rate: Rate, times: int) -> int:
    """How many of `times` requests are let through."""
    passed = 0
    for _ in range(times):
        try:
            rates.take(agent, rate)
        except RateLimit:
            continue
        passed += 1
    return passed


async def add_key(server: Server, agent_id: int, **limits: int) -> dict[str, str]:
    """Another agent with limits of its own; headers with its key."""
    key = mint_key()
    await server.services.agents.create_agent(f"agent{agent_id}", f"sid_ext_{agent_id}", key)
    columns = ", ".join(f"{name} = {value}" for name, value in limits.items())
    statement = f"UPDATE agents SET {columns} WHERE session_id = 'sid_ext_{agent_id}'"
    await server.services.database.writer.run(lambda connection: connection.execute(statement))
    return {"Authorization": f"Bearer {key}"}


def test_as_many_as_the_limit_pass_in_a_minute_and_the_next_is_told_when(minute: Minute) -> None:
    rates, agent = RateLimits(), make_agent(writes=3)
    assert take(rates, agent, Rate.WRITE, 10) == 3
    with pytest.raises(RateLimit) as refused:
        rates.take(agent, Rate.WRITE)
    assert refused.value.extra == {"limit": 3, "kind": "write"}
    assert 1 <= (refused.value.retry_after_s or 0) <= 60


def test_after_two_minutes_everything_is_free_again(minute: Minute) -> None:
    rates, agent = RateLimits(), make_agent(writes=3)
    take(rates, agent, Rate.WRITE, 3)
    minute.now += 120
    assert take(rates, agent, Rate.WRITE, 10) == 3


@pytest.mark.parametrize("writes", [1, 3, 60])
@pytest.mark.parametrize("begun_s", [0.5, 10, 35, 59])
def test_who_waits_as_long_as_was_told_is_let_through(minute: Minute, writes: int, begun_s: int) -> None:
    rates, agent = RateLimits(), make_agent(writes=writes)
    minute.now += begun_s
    take(rates, agent, Rate.WRITE, writes)
    for _ in range(5):
        with pytest.raises(RateLimit) as refused:
            rates.take(agent, Rate.WRITE)
        minute.now += (refused.value.retry_after_s or 0) + 0.001
        rates.take(agent, Rate.WRITE)
        take(rates, agent, Rate.WRITE, writes)


def test_reads_writes_and_agents_are_counted_apart(minute: Minute) -> None:
    rates = RateLimits()
    alice, bob = make_agent(1), make_agent(2)
    assert take(rates, alice, Rate.WRITE, 10) == 3
    assert take(rates, alice, Rate.READ, 10) == 5
    assert take(rates, bob, Rate.WRITE, 10) == 3


def test_the_keys_of_one_agent_draw_on_one_budget(minute: Minute) -> None:
    rates = RateLimits()
    whole, narrow = make_agent(writes=5), make_agent(writes=2)
    assert take(rates, narrow, Rate.WRITE, 10) == 2
    assert take(rates, whole, Rate.WRITE, 10) == 3
    assert take(rates, narrow, Rate.WRITE, 10) == 0


def test_a_limit_of_none_lets_nobody_through(minute: Minute) -> None:
    assert take(RateLimits(), make_agent(writes=0), Rate.WRITE, 3) == 0


async def test_generates_uploads_and_deletes_draw_on_the_writes(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 3})
    assert (await server.generate())[0] == 202
    assert (await server.upload(picture_bytes()))[0] == 200
    assert (await server.generate(prompt=""))[0] == 400
    status, body, headers = await server.generate()
    assert (status, body["code"], body["limit"]) == (429, "rate_limit", 3)
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert (await server.upload(picture_bytes()))[0] == 429
    assert (await server.call("GET", REFERENCES))[0] == 200


async def test_reads_have_their_own_limit(start_server: StartServer) -> None:
    server = await start_server(limits={"reads_per_minute": 2})
    statuses = [(await server.call("GET", path))[0] for path in (REFERENCES, "/api/v1/status/ext_1", REFERENCES)]
    assert statuses == [200, 404, 429]
    assert (await server.generate())[0] == 202


async def test_an_agents_own_limit_goes_before_the_default(start_server: StartServer) -> None:
    server = await start_server(limits={"reads_per_minute": 1})
    wide = await add_key(server, 1, reads_per_minute=3)
    assert [(await ask_with(server, wide, REFERENCES))[0] for _ in range(4)] == [200, 200, 200, 429]


async def test_a_key_may_only_narrow_the_limit_of_its_agent(server: Server) -> None:
    for limit, passed in ((1, 1), (9999, 600)):
        headers = await add_key(server, limit, reads_per_minute=600)
        statement = f"UPDATE api_keys SET reads_per_minute = {limit} WHERE agent_id = (SELECT max(id) FROM agents)"
        await server.services.database.writer.run(lambda c, statement=statement: c.execute(statement))
        key = headers["Authorization"].removeprefix("Bearer ")
        agent = await server.services.agents.find_by_key(key)
        assert agent is not None
        assert agent.limits.reads_per_minute == passed


async def test_what_needs_no_key_and_who_has_none_is_not_counted(start_server: StartServer) -> None:
    server = await start_server(limits={"reads_per_minute": 1})
    for _ in range(5):
        assert (await server.call("GET", "/healthz"))[0] == 200
        assert (await ask_with(server, {}, REFERENCES))[0] == 401
    assert (await server.call("GET", REFERENCES))[0] == 200
    assert (await ask_with(server, {}, REFERENCES))[0] == 401
