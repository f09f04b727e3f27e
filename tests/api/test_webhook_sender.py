"""One attempt: where it connects, what it sends, and how much of an answer it bears."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.api.webhook_receiver import make_certificate, open_receiver, wait_for
from umrgen_api import webhook_sender
from umrgen_api.webhook_sender import LookUp, Outcome, Sender
from umrgen_core.sections import WebhookSettings

OPEN = WebhookSettings(allow_private=True, allow_http=True, timeout_s=5)
STRICT = WebhookSettings(timeout_s=5)
NOT_ALLOWED = "the address is not allowed"


def names(*answers: list[str]) -> tuple[LookUp, list[str]]:
    """A resolver that gives these answers in turn, the last one for ever; and what it was asked."""
    asked: list[str] = []

    async def look_up(host: str, _: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return look_up, asked


async def post(url: str, settings: WebhookSettings = OPEN, look_up: LookUp | None = None) -> Outcome:
    return await Sender(settings, look_up).post(url, {"webhook-id": "msg_1"}, b"{}")


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_means_delivered(status: int) -> None:
    async with open_receiver(status) as receiver:
        outcome = await post(receiver.url())
    assert (outcome.accepted, outcome.gone, outcome.text) == (True, False, f"answered {status}")


@pytest.mark.parametrize("status", [300, 400, 404, 410, 429, 500, 503])
async def test_any_other_status_does_not_and_410_ends_it(status: int) -> None:
    async with open_receiver(status) as receiver:
        outcome = await post(receiver.url())
    assert (outcome.accepted, outcome.gone, outcome.status) == (False, status == 410, status)


async def test_the_url_goes_out_as_it_was_written_with_nothing_that_was_not_asked_for() -> None:
    async with open_receiver() as receiver:
        await post(receiver.url(path="/%7Ea/../b%2Fc?x=a+b&y=%20#never"))
        headers, body = receiver.heard[0]
        assert receiver.paths == ["/%7Ea/../b%2Fc?x=a+b&y=%20"]
    assert body == b"{}"
    assert headers.pop("Host") == f"127.0.0.1:{receiver.port}"
    assert headers == {
        "webhook-id": "msg_1",
        "User-Agent": "umrgen-webhooks",
        "Accept": "*/*",
        "Connection": "close",
        "Content-Length": "2",
        "Content-Type": "application/octet-stream",
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with open_receiver() as target:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": target.url(path="/secret")})

        async with open_receiver(redirect) as receiver:
            outcome = await post(receiver.url())
        assert (outcome.accepted, outcome.status, target.heard) == (False, status, [])


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/",
        "https://[::1]:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://0.0.0.0:{port}/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[64:ff9b::7f00:1]:{port}/",
    ],
)
async def test_no_socket_is_opened_to_an_address_that_is_not_public(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *a: opened.append(a))
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", lambda *a: opened.append(a))
    assert (await post(url.format(port=1), STRICT)).text == NOT_ALLOWED
    assert opened == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "localhost"])
async def test_another_spelling_of_an_address_gets_no_further(host: str) -> None:
    async with open_receiver() as receiver:
        outcome = await post(receiver.url(host, scheme="https"), STRICT)
        assert outcome.status is None
        assert receiver.heard == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1"])
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    look_up, asked = names([address])
    assert (await post("https://hooks.test/", STRICT, look_up)).text == NOT_ALLOWED
    assert asked == ["hooks.test"]


async def test_a_name_that_is_public_when_asked_and_private_when_asked_again_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rebinding: each attempt asks once, and connects to that answer or not at all."""
    connected: list[object] = []

    async def connect(_: object, address: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError(111, "nobody is here")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    look_up, asked = names(["93.184.216.34"], ["127.0.0.1"])
    sender = Sender(STRICT, look_up)
    first = await sender.post("https://hooks.test/", {}, b"{}")
    assert (first.text, len(asked)) == ("no connection (ECONNREFUSED)", 1)
    second = await sender.post("https://hooks.test/", {}, b"{}")
    assert (second.text, len(asked)) == (NOT_ALLOWED, 2)
    assert connected == [("93.184.216.34", 443)]


async def test_of_several_addresses_only_the_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []

    async def connect(_: object, address: tuple[str, int]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "nobody is here")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    look_up, _ = names(["127.0.0.1", "93.184.216.34", "10.0.0.1"])
    outcome = await post("https://hooks.test/", STRICT, look_up)
    assert outcome.text == NOT_ALLOWED
    assert set(connected) == {"93.184.216.34"}


async def test_the_name_is_in_the_handshake_the_certificate_and_the_request(tmp_path: Path) -> None:
    server, client = make_certificate(tmp_path, "hooks.test")
    look_up, _ = names(["127.0.0.1"])
    async with open_receiver(tls=server) as receiver:
        outcome = await Sender(OPEN, look_up, client).post(receiver.url("hooks.test", scheme="https"), {}, b"{}")
        assert outcome.accepted, outcome
        assert receiver.names == ["hooks.test"]
        assert receiver.heard[0][0]["Host"] == f"hooks.test:{receiver.port}"
        other = await Sender(OPEN, look_up, client).post(receiver.url("other.test", scheme="https"), {}, b"{}")
        assert other.text == "the certificate is not valid for the name"
        unknown = await Sender(OPEN, look_up).post(receiver.url("hooks.test", scheme="https"), {}, b"{}")
        assert unknown.text == "the certificate is not valid for the name"
        assert len(receiver.heard) == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_receiver() as proxy, open_receiver() as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(path=""))
        monkeypatch.delenv("no_proxy", raising=False)
        assert (await post(receiver.url())).accepted
        assert (len(proxy.heard), len(receiver.heard)) == (0, 1)


async def test_an_endless_answer_is_read_no_further_than_its_limit() -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    async with open_receiver(pour) as receiver:
        assert (await post(receiver.url())).accepted
        assert sent < 32 << 20  # what the kernel's buffers took of it


async def test_an_answer_that_never_ends_counts_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "READ_TIMEOUT_S", 0.2)

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    async with open_receiver(drip) as receiver:
        begun = time.monotonic()
        assert (await post(receiver.url())).accepted
        assert time.monotonic() - begun < 2


async def test_an_attempt_ends_with_its_time_wherever_it_hangs() -> None:
    short = WebhookSettings(allow_private=True, allow_http=True, timeout_s=0.2)

    async def say_nothing(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def never(_: str, __: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with open_receiver(say_nothing) as receiver:
        begun = time.monotonic()
        assert (await post(receiver.url(), short)).text == "no answer within 0.2 s"
        assert (await post("https://hooks.test/", short, never)).text == "no answer within 0.2 s"
        assert time.monotonic() - begun < 2


async def test_a_slow_resolver_holds_up_neither_the_attempt_nor_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    resolve = socket.getaddrinfo

    def hang(host: str, *rest: object, **options: object) -> object:
        begun.append(host)
        if host == "slow.test":
            time.sleep(1.0)
            raise socket.gaierror(socket.EAI_AGAIN, "late")
        return resolve("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    short = WebhookSettings(allow_private=True, allow_http=True, timeout_s=0.2)
    async with open_receiver() as receiver:
        slow = [asyncio.create_task(post("http://slow.test/", short)) for _ in range(40)]
        await wait_for(lambda: begun.count("slow.test") == 40)
        assert (await post(receiver.url("fast.test"))).accepted
        outcomes = {outcome.text for outcome in await asyncio.gather(*slow)}
    assert outcomes == {"no answer within 0.2 s"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the connection broke (ServerDisconnectedError)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 abc\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "answered 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "answered 200"),
    ],
)
async def test_a_receiver_that_speaks_badly_is_an_outcome_and_no_error(answer: bytes, said: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        outcome = await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=hush")
    assert outcome.text.startswith(said)
    assert "hush" not in outcome.text


async def test_what_cannot_be_connected_to_is_said_without_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert (await post(f"http://127.0.0.1:{port}/")).text == "no connection (ECONNREFUSED)"
    assert (await post("http://no-such-name.invalid/")).text == "the name was not found"
    assert (await post(f"http://{'a' * 70}.test/")).text == "the name was not found"
