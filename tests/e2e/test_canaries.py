"""Secrets put in at every door of both running daemons, then looked for in everything that they wrote."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import urllib.parse
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.conftest import make_settings, picture_bytes
from tests.e2e.conftest import Stack
from umrgen_cli.processes import Daemon
from umrgen_core.agent_store import AgentStore
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database
from umrgen_core.keys import mint_key

UNKNOWN_KEY = mint_key()
QUERY_KEY = mint_key()
TYPED_KEY = mint_key()[:-1] + "!"
PROMPT = "a red circle canaryprompt"
NEGATIVE = "canarynegative"
UPLOAD_NAME = "canaryupload.png"
IDEMPOTENCY_KEY = "canaryidempotency"
BROWSER = "canarybrowser/1.0"
REFERER = "https://canaryreferer.example/secret"
PLACE = "canaryplace"
COOKIE = "canarycookie"
FORGED = 'canaryforged\r\n{"event": "forged"}\x1b[31m\x00\x07'
LEAVES_NO_TRACE = [UPLOAD_NAME, BROWSER, "canaryreferer", PLACE, COOKIE, "canaryforged", "forged"]

DATABASE = ("umrgen.sqlite3", "umrgen.sqlite3-wal")


def make_key(data_dir: Path, level: str) -> str:
    """A key of an agent of our own, in a store that no daemon has opened yet."""
    key, settings = mint_key(), make_settings(data_dir, log={"level": level})

    async def put() -> None:
        async with open_database(settings, SystemClock()) as database:
            await AgentStore(database, settings.limits).create_agent("canary", "sid_ext_canary", key)

    asyncio.run(put())
    return key


class Session:
    """What was done to a service, and the secrets that came out of it."""

    def __init__(self, stack: Stack, key: str) -> None:
        self.stack = stack
        self.key = key
        self.headers = {"User-Agent": BROWSER, "Referer": REFERER, "Cookie": f"a={COOKIE}"}
        stack.http.headers.update({**self.headers, "Authorization": f"Bearer {key}"})
        self.file_names: list[str] = []
        self.picture = b""

    def run(self) -> None:
        """Every way that a request can go."""
        api = self.stack.start_api()
        uploaded = self._upload(1)
        spoiled = self._upload(2)
        doomed = self._generate(reference_images=[spoiled["filename"]])
        self._damage(spoiled["sha256"])
        cancelled = self._generate()
        self.stack.http.delete(f"{self.stack.url}/api/v1/jobs/{cancelled}", timeout=30)
        infer = self.stack.start_infer()
        assert self.stack.wait_status(doomed)["state"] == "failed"
        body = {
            "prompt": PROMPT,
            "negative": NEGATIVE,
            "reference_images": [uploaded["url"]],
            "width": 64,
            "height": 64,
        }
        for _ in range(2):
            headers = {"Idempotency-Key": IDEMPOTENCY_KEY}
            answer = self.stack.http.post(f"{self.stack.url}/api/v1/generate", json=body, headers=headers, timeout=30)
            assert answer.status_code == 202, answer.text
        status = self.stack.wait_status(answer.json()["job_id"])
        assert status["state"] == "completed", status
        self.picture = self._fetch(status["image_url"])
        self._fetch(uploaded["url"])
        self._be_refused(status["image_url"])
        self._speak_nonsense()
        for daemon in (api, infer):
            self._keep_metrics(daemon)

    def _keep_metrics(self, daemon: Daemon) -> None:
        """What the process shows, among the files that are looked through."""
        port = daemon.wait_for_event("metrics_listening", 10)["port"]
        shown = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        (self.stack.data_dir / f"{daemon.module}.metrics").write_text(shown)

    def _upload(self, seed: int) -> dict[str, str]:
        picture = {"file": (UPLOAD_NAME, picture_bytes(seed=seed), "image/png")}
        answer = self.stack.http.post(f"{self.stack.url}/api/v1/upload-reference", files=picture, timeout=30)
        assert answer.status_code == 200, answer.text
        self.file_names.append(answer.json()["filename"])
        return dict(answer.json())

    def _damage(self, sha256: str) -> None:
        """Spoil a reference on disk, so that the job that names it fails."""
        for file in (self.stack.data_dir / "files" / "references").iterdir():
            if hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
                file.write_bytes(bytes(100))

    def _generate(self, **fields: object) -> str:
        return self.stack.generate(prompt=PROMPT, negative=NEGATIVE, width=64, height=64, **fields)

    def _fetch(self, url: str) -> bytes:
        self.file_names.append(url.partition("?")[0].rpartition("/")[2])
        answer = requests.get(self.stack.url + url, headers=self.headers, timeout=30)
        assert answer.status_code == 200
        return answer.content

    def _be_refused(self, image_url: str) -> None:
        """Requests that are well-formed and lead nowhere."""
        url, path = self.stack.url, image_url.partition("?")[0]
        for key in (UNKNOWN_KEY, TYPED_KEY, self.key + "x", FORGED.encode().hex()):
            requests.get(f"{url}/api/v1/references", headers={"Authorization": f"Bearer {key}"}, timeout=30)
            requests.get(url + path, headers={"Authorization": f"Basic {key}"}, timeout=30)
        for query in (f"key={QUERY_KEY}", f"session_id={QUERY_KEY}", f"access_token={self.key}", f"x={PLACE}"):
            requests.get(f"{url}{path}?{query}", headers=self.headers, timeout=30)
            self.stack.http.get(f"{url}/api/v1/status/{PLACE}?{query}", timeout=30)
        forged = urllib.parse.quote(FORGED)
        for place in (
            f"/{PLACE}/{forged}",
            f"/api/v1/{forged}",
            f"/api/v1/status/{forged}",
            f"/outputs/{forged}/{self.key}",
        ):
            self.stack.http.get(url + place, timeout=30)
            self.stack.http.delete(url + place, timeout=30)
        post = f"{url}/api/v1/generate"
        for body in (
            b"{" + PLACE.encode(),
            json.dumps({"prompt": f"porn {PLACE}"}).encode(),
            b'{"width": "%s"}' % PLACE.encode(),
        ):
            self.stack.http.post(post, data=body, headers={"Content-Type": "application/json"}, timeout=30)
        self.stack.http.post(
            post, data=b"x", headers={"Content-Type": PLACE, "X-Request-ID": FORGED[:12] + "!"}, timeout=30
        )
        broken = {"file": (UPLOAD_NAME, b"no picture " + PLACE.encode(), "image/png")}
        assert self.stack.http.post(f"{url}/api/v1/upload-reference", files=broken, timeout=30).status_code == 400

    def _speak_nonsense(self) -> None:
        """Bytes that are no HTTP, with secrets in them."""
        host, port = self.stack.url.removeprefix("http://").split(":")
        key = self.key.encode()
        for sent in (
            b"GET /" + PLACE.encode() + b"\x00\x1b[31m HTTP/1.1\r\nAuthorization: Bearer " + key + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nBearer " + key + b"\r\n\r\n",
            b"Bearer " + key + b" " + FORGED.encode() + b"\r\n\r\n",
            b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: " + key + b"\r\n\r\n",
            b"GET http://[" + key + b"/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/" + key + b"\r\n\r\n",
            b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + key + b"\r\n",
        ):
            with (
                socket.create_connection((host, int(port)), timeout=10) as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(sent)
                connection.recv(1 << 16)


def find(data_dir: Path, secret: str) -> list[str]:
    """The files below the data directory that hold `secret`, plain or in a form that is as good."""
    plain = secret.encode()
    forms = {
        plain,
        plain.lower(),
        urllib.parse.quote(secret).encode(),
        base64.b64encode(plain)[:-4],
        plain.hex().encode(),
    }
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return [str(path.relative_to(data_dir)) for path in files if any(form in path.read_bytes() for form in forms)]


@pytest.fixture(scope="module", params=["info", "debug"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A service that has been through everything and has stopped."""
    data_dir = tmp_path_factory.mktemp("canaries") / "data"
    key = make_key(data_dir, request.param)
    with contextlib.ExitStack() as exits:
        environment = {
            "UMRGEN_LOG__LEVEL": request.param,
            "UMRGEN_LIMITS__CONCURRENT_JOBS": "9",
            "UMRGEN_METRICS__API_LISTEN": "127.0.0.1:0",
            "UMRGEN_METRICS__INFER_LISTEN": "127.0.0.1:0",
        }
        done = Session(Stack(data_dir, exits, **environment), key)
        done.run()
    return done


def read_log_lines(session: Session) -> list[str]:
    """Every line that the daemons wrote to stdout, stderr and their log files."""
    data_dir = session.stack.data_dir
    written = [*data_dir.glob("*.out"), *(data_dir / "log").iterdir()]
    assert len(written) == 4
    return [line for path in written for line in path.read_bytes().decode("utf-8").split("\n") if line]


def test_no_key_is_written_anywhere(session: Session) -> None:
    data_dir = session.stack.data_dir
    for key in (session.key, UNKNOWN_KEY, QUERY_KEY, TYPED_KEY):
        assert find(data_dir, key) == []
        assert find(data_dir, key.removeprefix("umr_")) == []
    assert DATABASE[0] in find(data_dir, hashlib.sha256(session.key.encode()).hexdigest())
    assert find(data_dir, hashlib.sha256(UNKNOWN_KEY.encode()).hexdigest()) == []


def test_what_a_job_asks_for_is_in_the_database_alone(session: Session) -> None:
    for secret in ("canaryprompt", NEGATIVE, IDEMPOTENCY_KEY):
        assert set(find(session.stack.data_dir, secret)) <= set(DATABASE)
        assert DATABASE[0] in find(session.stack.data_dir, secret)


def test_the_names_of_files_are_in_the_database_alone(session: Session) -> None:
    assert len(set(session.file_names)) == 3
    for name in session.file_names:
        assert DATABASE[0] in find(session.stack.data_dir, name)
        assert set(find(session.stack.data_dir, name)) <= set(DATABASE)
    assert not [line for line in read_log_lines(session) if "session_id=" in line or "/outputs/sid_" in line]


@pytest.mark.parametrize("secret", LEAVES_NO_TRACE)
def test_what_nobody_needs_is_written_nowhere(session: Session, secret: str) -> None:
    assert find(session.stack.data_dir, secret) == []


def test_every_line_of_a_log_is_one_json_object_that_drives_no_terminal(session: Session) -> None:
    events = []
    for line in read_log_lines(session):
        assert line.isprintable(), line
        events.append(json.loads(line))
        assert isinstance(events[-1], dict)
    seen = {event["event"] for event in events}
    assert seen >= {"listening", "request", "job_completed", "job_failed", "stopped"}  # it is all in there
    assert {event["status"] for event in events if event["event"] == "request"} >= {200, 202, 400, 401, 403, 404}


def test_metrics_name_neither_agents_nor_jobs_nor_anything_that_was_sent(session: Session) -> None:
    for name in ("umrgen_api", "umrgen_infer"):
        shown = (session.stack.data_dir / f"{name}.metrics").read_text()
        assert re.search(r'^umrgen_jobs_ended_total\{.*state="(failed|cancelled)"} 1.0$', shown, re.MULTILINE)
        for secret in ("canary", "ext_", "sid_", session.key, *session.file_names):
            assert secret not in shown


def test_a_picture_does_not_tell_its_prompt(session: Session) -> None:
    picture = Image.open(io.BytesIO(session.picture))
    told = json.loads(picture.info["umrgen"])
    assert told["seed"] >= 0
    assert not {"prompt", "negative"} & set(told)
    assert b"canary" not in session.picture
