from __future__ import annotations

from dataclasses import dataclass

import aiohttp
import pytest

from tests.api.conftest import Server
from tests.api.test_status import accept, claim, complete_next
from tests.conftest import picture_bytes
from umrgen_core.keys import mint_key

CHANGING = {"X-Request-ID", "Date"}
NO_NAME = "no name is in this answer"


@dataclass
class Bob:
    """A second agent beside the development agent, who owns everything here."""

    server: Server
    key: str

    async def ask(self, method: str, path: str, name: str, **arguments: object) -> tuple[int, bytes, dict[str, str]]:
        """An answer as it came over the wire, with `name` taken out of it."""
        async with (
            aiohttp.ClientSession(self.server.url, headers={"Authorization": f"Bearer {self.key}"}) as session,
            session.request(method, path, **arguments) as response,
        ):
            headers = {header: value for header, value in response.headers.items() if header not in CHANGING}
            return response.status, (await response.read()).replace(name.encode(), b"NAME"), headers


@pytest.fixture
async def bob(server: Server) -> Bob:
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key)
    return Bob(server, key)


def another(name: str) -> str:
    """A name of the same form that nothing has."""
    digit = next(place for place in reversed(range(len(name) - 4)) if name[place].isdigit())
    return name[:digit] + str((int(name[digit]) + 1) % 10) + name[digit + 1 :]


async def upload(server: Server) -> str:
    filename: str = (await server.upload(picture_bytes()))[1]["filename"]
    return filename


@pytest.mark.parametrize("state", ["queued", "running", "completed"])
async def test_the_status_of_anothers_job(server: Server, bob: Bob, state: str) -> None:
    job_id = await accept(server)
    if state == "running":
        await claim(server)
    if state == "completed":
        await complete_next(server)
    answers = [await bob.ask("GET", f"/api/v1/status/{name}", name) for name in (job_id, another(job_id))]
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


@pytest.mark.parametrize("pinned", [False, True], ids=["idle", "in use"])
async def test_deleting_anothers_reference(server: Server, bob: Bob, pinned: bool) -> None:
    filename = await upload(server)
    if pinned:
        await accept(server, reference_images=[filename])
    names = (filename, another(filename))
    answers = [await bob.ask("DELETE", f"/api/v1/references/{name}", name) for name in names]
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert [r["filename"] for r in (await server.call("GET", "/api/v1/references"))[1]["references"]] == [filename]


async def test_generating_with_anothers_picture(server: Server, bob: Bob) -> None:
    reference = await upload(server)
    await accept(server)
    output = (await complete_next(server)).filename
    for own in (reference, output):
        shelf = "references" if own == reference else "outputs"
        for form in (
            "{}",
            f"/{shelf}/sid_ext_gen/{{}}",
            f"/{shelf}/sid_ext_bob/{{}}",
            f"https://a.b/{shelf}/sid_ext_gen/{{}}",
        ):
            answers = []
            for name in (own, another(own)):
                body = {"prompt": "a star", "reference_images": [form.format(name)]}
                answers.append(await bob.ask("POST", "/api/v1/generate", name, json=body))
            assert answers[0] == answers[1]
            assert answers[0][0] == 400


async def test_a_picture_under_the_strangers_own_session(server: Server, bob: Bob) -> None:
    reference = await upload(server)
    await accept(server)
    output = (await complete_next(server)).filename
    for path in (f"/references/{{}}/{reference}", f"/outputs/{{}}/{output}"):
        for session, status in (("sid_ext_bob", 404), ("sid_ext_gen", 403)):
            name = path.format(session)
            answers = [await bob.ask("GET", place, place) for place in (name, another(name))]
            assert answers[0] == answers[1]
            assert answers[0][0] == status
            assert (await bob.ask("GET", f"{name}?session_id=sid_ext_bob", name))[0] == status


async def test_what_one_has_is_not_on_the_others_list(server: Server, bob: Bob) -> None:
    empty = await bob.ask("GET", "/api/v1/references", NO_NAME)
    await upload(server)
    assert await bob.ask("GET", "/api/v1/references", NO_NAME) == empty
    assert empty[1] == b'{"success":true,"references":[]}'


async def test_the_same_bytes_are_another_reference_for_another_agent(server: Server, bob: Bob) -> None:
    filename = await upload(server)
    form = aiohttp.FormData()
    form.add_field("file", picture_bytes(), filename="a.png")
    status, body, _ = await bob.ask("POST", "/api/v1/upload-reference", NO_NAME, data=form)
    assert status == 200
    assert filename.encode() not in body
    assert b"/references/sid_ext_bob/" in body
    await server.call("DELETE", f"/api/v1/references/{filename}")
    _, listed, _ = await bob.ask("GET", "/api/v1/references", NO_NAME)
    assert listed.count(b'"filename"') == 1


async def test_one_agents_limit_is_no_limit_for_the_other(server: Server, bob: Bob) -> None:
    await accept(server)
    assert (await server.generate())[0] == 429
    assert (await bob.ask("POST", "/api/v1/generate", NO_NAME, json={"prompt": "a star"}))[0] == 202
    status, body, _ = await bob.ask("POST", "/api/v1/generate", NO_NAME, json={"prompt": "a star"})
    assert status == 429
    assert (await server.generate())[1]["job_id"].encode() not in body
