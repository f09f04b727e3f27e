"""The owner's commands as processes, and what they change for agents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.conftest import Server, StartServer, start_server  # noqa: F401 - a fixture
from tests.conftest import ROOT, make_settings


@pytest.fixture
def admin(tmp_path: Path):
    make_settings(tmp_path / "data")  # lays the empty store

    def run(*arguments: str, status: int = 0) -> str:
        environment = {
            **os.environ,
            "UMRGEN_STORAGE__DATA_DIR": str(tmp_path / "data"),
            "UMRGEN_STORAGE__BALLAST_BYTES": "0",
        }
        command = [sys.executable, "-m", "umrgen_cli.admin", *arguments, "--config", str(ROOT / "config.toml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def key_in(output: str) -> str:
    (key,) = re.findall(r"umr_[0-9A-Za-z]{49}", output)
    return key


async def status_with(server: Server, key: str, path: str = "/api/v1/references") -> int:
    return (await server.call("GET", path, headers={"Authorization": f"Bearer {key}"}))[0]


async def test_a_new_agent_has_a_key_that_works_and_is_kept_nowhere(admin, start_server: StartServer, tmp_path: Path):  # noqa: F811
    key = key_in(admin("agents", "create", "alice", "--concurrent-jobs", "2"))
    server = await start_server()
    assert await status_with(server, key) == 200
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes()


async def test_a_revoked_key_is_refused_at_the_next_request(admin, start_server: StartServer) -> None:  # noqa: F811
    key = key_in(admin("agents", "create", "alice"))
    server = await start_server()
    assert await status_with(server, key) == 200
    admin("keys", "revoke", "1")
    assert await status_with(server, key) == 401


async def test_rotation_leaves_both_keys_good_for_the_grace(admin, start_server: StartServer, clock) -> None:  # noqa: F811
    clock.wall = 2_000_000_000_000_000
    old = key_in(admin("agents", "create", "alice"))
    new = key_in(admin("keys", "rotate", "1", "--grace-s", "100000"))
    gone = key_in(admin("keys", "rotate", "2", "--grace-s", "0"))
    server = await start_server()
    clock.wall = 0
    assert [await status_with(server, key) for key in (old, new, gone)] == [200, 200, 200]
    clock.wall = 2_100_000_000_000_000
    assert [await status_with(server, key) for key in (old, new, gone)] == [401, 401, 200]


async def test_scopes_and_narrowed_limits_hold(admin, start_server: StartServer) -> None:  # noqa: F811
    admin("agents", "create", "alice", "--reads-per-minute", "100")
    key = key_in(admin("keys", "create", "alice", "--scopes", "read", "--reads-per-minute", "2"))
    server = await start_server()
    headers = {"Authorization": f"Bearer {key}"}
    status, body, _ = await server.call("POST", "/api/v1/generate", json={"prompt": "x"}, headers=headers)
    assert (status, body["code"]) == (403, "forbidden")
    assert [await status_with(server, key) for _ in range(3)] == [200, 200, 429]


async def test_categories_of_blocked_keywords_are_switched_off_and_on(admin, start_server: StartServer) -> None:  # noqa: F811
    key = key_in(admin("agents", "create", "alice", "--concurrent-jobs", "9"))
    server = await start_server()

    async def ask() -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return (await server.call("POST", "/api/v1/generate", json={"prompt": "a beheading"}, headers=headers))[0]

    assert await ask() == 400
    assert "violence" in admin("agents", "safety", "alice", "--off", "violence,sexual")
    assert await ask() == 202
    assert "sexual violence" in admin("agents", "list")
    admin("agents", "safety", "alice", "--off", "none")
    assert await ask() == 400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("agents", "create", "../x"), "name: must be"),
        (("agents", "create", "development"), "choose another name"),
        (("agents", "limits", "nobody", "--rate-per-minute", "1"), "no agent called 'nobody'"),
        (("keys", "create", "nobody"), "no agent called 'nobody'"),
        (("keys", "revoke", "99"), "no key 99"),
        (("keys", "create", "development", "--scopes", "fly"), "upload, generate, read"),
        (("agents", "create", "bob", "--rate-per-minute", "-3"), "whole number"),
        (("agents", "safety", "nobody", "--off", "violence"), "no agent called 'nobody'"),
        (("agents", "safety", "development", "--off", "violins"), "there are hate, minors, sexual, violence"),
        (("agents", "safety", "development", "--off", "minors"), "cannot be switched off"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_changes_nothing(admin, arguments: tuple[str, ...], said: str) -> None:
    complaint = admin(*arguments, status=1)
    assert said in complaint
    assert len(complaint.splitlines()) == 1


async def test_the_development_key_is_managed_by_the_configuration_alone(admin, start_server: StartServer) -> None:  # noqa: F811
    await start_server()
    for action in ("revoke", "rotate"):
        assert "[auth] development_key" in admin("keys", action, "1", status=1)


def test_lists_show_agents_and_keys_without_the_keys(admin) -> None:
    key = key_in(admin("agents", "create", "alice", "--output-bytes-limit", "12345"))
    assert "12345" in admin("agents", "list")
    listed = admin("keys", "list")
    assert "alice" in listed
    assert key not in listed
