"""Clients in a process of their own: what they cost does not count for the server. Bounded in count and in time."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection

from benchmarks.figure import take_percentile

MOST_S = 120.0
STAMP = b"0123456789abcdef-not-yet-stamped"
"""Where it stands in a body, each request puts something of its own."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    path: str
    method: str = "GET"
    key: str = ""
    body: bytes = b""
    content_type: str = "application/json"

    def encode(self, host: str) -> bytes:
        """As it goes over the wire."""
        body = self.body.replace(STAMP, uuid.uuid4().hex.encode(), 1) if self.body else b""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if body:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests in all; each client goes round its own list, one request at a time, on one connection."""

    port: int
    clients: Sequence[Sequence[Ask]]
    count: int
    host: str = "127.0.0.1"
    tls: bool = False
    most_s: float = MOST_S


@dataclass(frozen=True, slots=True)
class Answers:
    """What the clients saw."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wall_s: float = 0.0
    refusal: str = ""
    """The beginning of an answer that was none of the 200s."""

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return len(self.latencies_s) / self.wall_s

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds of a request."""
        return take_percentile(self.latencies_s, percent) * 1000


class _Client(asyncio.Protocol):
    """A connection that can do no more of HTTP than the measured servers need."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._status = 0
        self._sample = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if not self._status:
            self._head += data
            head, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            self._head, self._status = b"", int(head[9:12])
            self._missing, self._sample = _read_length(head), data[:300]
        self._missing -= len(data)
        if self._missing <= 0 and self._answer is not None:
            status, self._status = self._status, 0
            self._answer.set_result((status, self._sample))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and the beginning of the body."""
        if self.transport is None:
            raise ConnectionError("not connected")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


def _read_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def send_all(load: Load) -> Answers:
    """Send every request of `load` from this process."""
    answers = Answers()
    each = max(1, load.count // len(load.clients))
    loop = asyncio.get_running_loop()
    connect = partial(loop.create_connection, _Client, load.host, load.port, ssl=load.tls or None)
    connections = [(await connect())[1] for _ in load.clients]
    began = time.perf_counter()
    async with asyncio.timeout(load.most_s):
        refusals = await asyncio.gather(
            *(
                _go_round(client, load, asks, each, answers)
                for client, asks in zip(connections, load.clients, strict=True)
            )
        )
    wall_s = time.perf_counter() - began
    for client in connections:
        if client.transport is not None:
            client.transport.close()
    return Answers(answers.latencies_s, answers.statuses, wall_s, next(filter(None, refusals), ""))


async def _go_round(client: _Client, load: Load, asks: Sequence[Ask], count: int, answers: Answers) -> str:
    refusal = ""
    for number in range(count):
        request = asks[number % len(asks)].encode(load.host)
        began = time.perf_counter()
        try:
            status, sample = await client.ask(request)
        except ConnectionError as error:
            return f"the server hung up: {error}"
        answers.latencies_s.append(time.perf_counter() - began)
        answers.statuses[status] += 1
        if status >= 300:
            refusal = f"{status} {sample[:300]!r}"
    return refusal


def _serve(channel: Connection, load: Load) -> None:
    channel.send(asyncio.run(send_all(load)))


def run_load(load: Load) -> Answers:
    """Send every request of `load` from a process of its own. Raises SystemExit when one was not answered well."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, load), daemon=True)
    process.start()
    theirs.close()
    try:
        answers: Answers = ours.recv()
    except EOFError:
        raise SystemExit("the clients ended without an answer; their traceback is above") from None
    finally:
        process.join(10)
    if answers.refusal:
        raise SystemExit(f"a request was refused: {answers.refusal}")  # as 429, where its agent has a low limit
    return answers
