from __future__ import annotations

from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.database import Database
from umrgen_core.keys import mint_key
from umrgen_core.sqlite import Connection


class Looking:
    """What reads on the agents' behalf, and whose turn it was."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, _: Connection, agent: Agent) -> str:
        self.asked.append(agent.name)
        return f"what {agent.name} may see"


async def test_what_is_read_along_with_a_key_comes_with_its_agent(agents: AgentStore) -> None:
    key, look = mint_key(), Looking()
    await agents.create_agent("alice", "sid_ext_alice", key)
    found = await agents.find_by_key_and(key, look)
    assert found is not None
    assert (found[0].name, found[1]) == ("alice", "what alice may see")


async def test_nothing_is_read_on_behalf_of_a_stranger_or_of_an_ended_key(
    agents: AgentStore, database: Database
) -> None:
    revoked, expired, look = mint_key(), mint_key(), Looking()
    await agents.create_agent("alice", "sid_ext_alice", revoked)
    await agents.create_agent("bob", "sid_ext_bob", expired)
    await database.writer.run(
        lambda connection: connection.execute("UPDATE api_keys SET revoked_at_us = 1 WHERE agent_id = 1").rowcount
    )
    now_us = database.clock.wall_us()
    await database.writer.run(
        lambda connection: (
            connection.execute("UPDATE api_keys SET expires_at_us = ? WHERE agent_id = 2", (now_us,)).rowcount
        )
    )
    for key in (mint_key(), revoked, expired):
        assert await agents.find_by_key_and(key, look) is None
    assert look.asked == []
