"""The MCP server, asked by the SDK's own client."""

from __future__ import annotations

import base64
import io
import json
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.types import CallToolResult
from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, ROOT, picture_bytes
from tests.e2e.conftest import Stack
from tests.mcp.conftest import PUBLIC_URL, connect_http, connect_stdio, start_mcp
from umrgen_cli.processes import ProcessFailed, running

TOOLS = {"generate", "upload_reference", "get_status", "cancel", "list_models"}
SMALL = {"width": 96, "height": 64, "steps": 1}


def picture_of(result: CallToolResult) -> Image.Image:
    image = result.content[0]
    assert image.type == "image"
    assert len(image.data) <= 1_000_000
    return Image.open(io.BytesIO(base64.b64decode(image.data)))


def error_of(result: CallToolResult) -> str:
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


async def paint(client: Client) -> tuple[CallToolResult, list[tuple[float, float | None, str | None]]]:
    """Upload, generate with it, and what was told meanwhile."""
    told: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    content = base64.b64encode(picture_bytes(80, 70, "JPEG")).decode()
    kept = await client.call_tool("upload_reference", {"data": content})
    arguments = {"prompt": "a circle", "references": [kept.structured_content["filename"]], **SMALL}
    return await client.call_tool("generate", arguments, progress_callback=hear), told


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_paints_over_http_in_the_new_and_the_old_protocol(mcp_url: str, mode: str) -> None:
    async with connect_http(mcp_url, mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        result, told = await paint(client)
        assert not result.is_error
        assert picture_of(result).size == (96, 64)
        status = result.structured_content
        assert (status["state"], status["reference_images"][0][:6]) == ("completed", "image_")
        assert status["image_url"].startswith(f"{PUBLIC_URL}/outputs/")
        assert json.loads(result.content[1].text) == status
        assert told[-1][:2] == (1.0, 1.0)
        assert status["job_id"] in told[0][2]
        assert [one[0] for one in told] == sorted({one[0] for one in told})


async def test_a_local_agent_paints_over_stdin_and_stdout(service: Stack) -> None:
    async with connect_stdio(service.url) as client:
        result, told = await paint(client)
        assert picture_of(result).size == (96, 64)
        assert told
        url = result.structured_content["image_url"]
        assert httpx2.get(url).headers["content-type"] == "image/png"


async def test_a_job_can_be_left_found_again_and_cancelled(mcp_url: str) -> None:
    async with connect_http(mcp_url) as client:
        left = await client.call_tool("generate", {"prompt": "a circle", "steps": 50, "wait_s": 0})
        assert "The job goes on" in left.content[0].text
        job = {"job_id": left.structured_content["job_id"]}
        assert (await client.call_tool("cancel", job)).structured_content["job_id"] == job["job_id"]
        found = await wait_for_end(client, job)
        assert found.structured_content["state"] == "cancelled"
        painted = await client.call_tool("generate", {"prompt": "a square", **SMALL})
        again = {"job_id": painted.structured_content["job_id"]}
        assert picture_of(await client.call_tool("get_status", again)).size == (96, 64)
        bare = await client.call_tool("get_status", {**again, "preview": False})
        assert [block.type for block in bare.content] == ["text"]
        models = (await client.call_tool("list_models", {})).structured_content["models"]
        assert [model["name"] for model in models] == ["tiny-klein"]


async def wait_for_end(client: Client, job: dict[str, Any]) -> CallToolResult:
    for _ in range(2000):
        found = await client.call_tool("get_status", job)
        if found.structured_content["state"] not in ("queued", "running"):
            return found
    raise AssertionError("the job did not end")


async def test_refusals_are_tool_errors_in_the_services_words(mcp_url: str) -> None:
    async with connect_http(mcp_url) as client:
        wide = await client.call_tool("generate", {"prompt": "x", "width": 9999})
        assert "width: must be at most 2048 (code: invalid_request)\nwidth: 2048 would work" in error_of(wide)
        assert "(code: job_not_found)" in error_of(await client.call_tool("get_status", {"job_id": "ext_none"}))
        assert "(code: invalid_image)" in error_of(await client.call_tool("upload_reference", {"data": "aGVsbG8="}))
    async with connect_http(mcp_url, key="umr_wrong") as stranger:
        assert "(code: unauthorized)" in error_of(await stranger.call_tool("list_models", {}))


@pytest.mark.parametrize("reference", [str(ROOT / "docs" / "tiny-klein.png"), "config.toml", "https://x.example/a.png"])
async def test_neither_a_file_of_the_server_nor_a_page_is_ever_read(mcp_url: str, reference: str) -> None:
    async with connect_http(mcp_url) as client:
        painted = await client.call_tool("generate", {"prompt": "x", "references": [reference]})
        assert "(code: reference_not_found)" in error_of(painted)
        kept = await client.call_tool("upload_reference", {"data": reference})
        assert "(code: invalid_image)" in error_of(kept)


async def test_without_a_public_url_the_answer_has_a_path_and_says_so(service: Stack, tmp_path: Path) -> None:
    daemon = start_mcp(service, tmp_path / "mcp.out", UMRGEN_API__PUBLIC_URL="")
    with running(daemon):
        port = daemon.wait_for_event("listening", 60)["port"]
        async with connect_http(f"http://127.0.0.1:{port}/mcp") as client:
            status = (await client.call_tool("generate", {"prompt": "a circle", **SMALL})).structured_content
        assert status["image_url"].startswith("/outputs/")
        assert "public_url" in status["note"]
        assert daemon.stop(signal.SIGTERM) == 0


async def test_the_development_key_counts_on_this_machine_only(mcp_url: str) -> None:
    async with connect_http(mcp_url, **{"X-Forwarded-For": "203.0.113.9"}) as client:
        assert "(code: unauthorized)" in error_of(await client.call_tool("list_models", {}))


def test_a_server_open_to_others_does_not_start_with_the_development_key(service: Stack, tmp_path: Path) -> None:
    daemon = start_mcp(service, tmp_path / "mcp.out", UMRGEN_MCP__HOST="0.0.0.0")
    with running(daemon), pytest.raises(ProcessFailed, match="development_key"):
        daemon.wait_for_event("listening", 60)
    assert daemon.process.returncode == 2


def test_the_gate_refuses_strangers_and_pages_of_other_sites(mcp_url: str) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json, text/event-stream"}
    refused = httpx2.post(mcp_url, json=call, headers=accept)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    mine = {**accept, "Authorization": f"Bearer {DEVELOPMENT_KEY}"}
    assert httpx2.post(mcp_url, json=call, headers={**mine, "Origin": "https://evil.example"}).status_code == 403
    assert httpx2.post(mcp_url, json=call, headers={**mine, "Origin": "http://localhost:6274"}).status_code == 200
    assert "server" not in refused.headers


def test_a_large_body_of_a_stranger_is_refused_unread(mcp_url: str) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "padding": "x" * 100_000}
    headers = {"Accept": "application/json, text/event-stream"}
    for key, status in ((DEVELOPMENT_KEY, 200), ("umr_wrong", 401)):
        answer = httpx2.post(mcp_url, json=call, headers={**headers, "Authorization": f"Bearer {key}"})
        assert answer.status_code == status, answer.text


async def test_a_reference_of_ten_megabytes_goes_through_and_a_larger_one_is_refused(mcp_url: str) -> None:
    picture = picture_bytes(64, 64)
    async with connect_http(mcp_url) as client:
        for size, refused in ((10 << 20, False), ((10 << 20) + 1, True)):
            content = base64.b64encode(picture + bytes(size - len(picture))).decode()
            kept = await client.call_tool("upload_reference", {"data": content})
            assert kept.is_error == refused, kept.content
            assert not refused or "(code: file_too_large)" in error_of(kept)
