"""The shipped examples for nginx and Caddy, each run before a real service that is set as docs/proxies.md says."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.conftest import DEVELOPMENT_KEY, picture_bytes
from tests.deploy.fronted import FAILURES, MOST_S, HangsUp, Site
from tests.deploy.proxies import COMMANDS, EXAMPLES, NAME, PROXIES, Proxy, run_proxy
from tests.e2e.conftest import Stack, wait_until
from umrgen_api.errors import HTTP_ERRORS
from umrgen_api.openai.pictures import MAX_WAIT_S
from umrgen_core.errors import Unavailable

pytestmark = pytest.mark.skipif(
    None in COMMANDS.values(),
    reason="nginx and caddy are not installed: apt-get install --no-install-recommends nginx-light caddy",
)
URL = f"https://{NAME}"
LIMIT_BYTES = 10_485_760


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as exits:
        yield Site(tmp_path_factory.mktemp("site"), exits)


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, site: Site) -> Proxy:
    return site.proxies[request.param]


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
def test_the_service_alone_says_which_uploads_are_too_large(site: Site, proxy: Proxy, more: int, status: int) -> None:
    files = {"file": picture_bytes().ljust(LIMIT_BYTES + more, b"\0")}
    answer = proxy.visit(site.key).post(f"{URL}/api/v1/upload-reference", files=files, timeout=MOST_S)
    assert answer.status_code == status
    assert answer.json().get("code") == (None if status == 200 else "file_too_large")


@pytest.mark.parametrize(("more", "status"), [(0, 200), (30_000_000, 413)])
def test_over_http_2_it_says_so_too_in_the_middle_of_an_upload(
    site: Site, proxy: Proxy, tmp_path: Path, more: int, status: int
) -> None:
    (tmp_path / "picture").write_bytes(picture_bytes().ljust(LIMIT_BYTES + more, b"\0"))
    options = ("-H", f"Authorization: Bearer {site.key}", "-F", f"file=@{tmp_path}/picture")
    # The status alone: who is cut short while it sends may lose the body of the answer.
    assert proxy.curl("/api/v1/upload-reference", *options).stdout.endswith(f" 2 {status}")


def test_refused_keys_count_for_the_network_that_the_client_is_in_whatever_it_claims(site: Site, proxy: Proxy) -> None:
    network = 10 + list(site.proxies.values()).index(proxy)
    guesser = proxy.visit("wrong", f"127.{network}.0.2")

    def guess(number: int) -> int:
        claimed = {"X-Forwarded-For": f"198.51.{number}.7", "Forwarded": f"for=198.51.{number}.7"}
        return guesser.get(f"{URL}/api/v1/me", headers=claimed, timeout=MOST_S).status_code

    assert [guess(number) for number in range(FAILURES + 1)] == [401] * FAILURES + [429]
    assert proxy.visit("wrong", f"127.{network}.1.2").get(f"{URL}/api/v1/me", timeout=MOST_S).status_code == 401
    assert proxy.visit(site.key, f"127.{network}.0.2").get(f"{URL}/api/v1/me", timeout=MOST_S).status_code == 200


def test_people_sign_in_with_a_secure_cookie_and_the_owners_pages_stay_on_the_box(site: Site, proxy: Proxy) -> None:
    person = proxy.visit()
    form = {"data": {"key": site.owners_key}, "timeout": MOST_S}
    foreign = person.post(f"{URL}/console/sign-in", headers={"Origin": "https://elsewhere.example"}, **form)
    assert foreign.status_code == 403
    signed_in = person.post(f"{URL}/console/sign-in", headers={"Origin": URL}, **form)
    assert (signed_in.status_code, signed_in.url) == (200, f"{URL}/console")
    assert all(cookie.secure and cookie.name.startswith("__Host-") for cookie in person.cookies)
    assert person.get(f"{URL}/console/admin", timeout=MOST_S).status_code == 403
    as_if_there = {"Host": "localhost", "Cookie": "; ".join(f"{one.name}={one.value}" for one in person.cookies)}
    claimed = person.get(f"{URL}/console/admin", headers=as_if_there, timeout=MOST_S)
    assert claimed.status_code == 403 or not claimed.content  # Caddy knows no such site
    at_the_box = requests.Session()
    at_the_box.post(f"{site.stack.url}/console/sign-in", headers={"Origin": site.stack.url}, **form)
    assert at_the_box.get(f"{site.stack.url}/console/admin", timeout=MOST_S).status_code == 200


def test_request_ids_pass_and_neither_versions_nor_metrics_show(site: Site, proxy: Proxy) -> None:
    answer = proxy.visit(site.key).get(f"{URL}/metrics", headers={"X-Request-ID": "mine-1"}, timeout=MOST_S)
    assert answer.json()["code"] == "not_found"
    assert answer.headers["X-Request-ID"] == "mine-1"
    assert not re.search(r"\d", answer.headers["Server"])
    metrics = site.web.wait_for_event("metrics_listening", MOST_S)["port"]
    assert "umrgen_" in requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=MOST_S).text


def test_without_tls_people_are_led_on_and_keys_are_told_so(site: Site, proxy: Proxy) -> None:
    visitor, options = proxy.visit(site.key), {"allow_redirects": False, "timeout": MOST_S}
    assert visitor.get(f"http://{NAME}/console/queue?x=1", **options).headers["Location"] == f"{URL}/console/queue?x=1"
    refused = visitor.post(f"http://{NAME}/api/v1/generate", json={"prompt": "a red circle"}, **options)
    assert (refused.status_code, refused.text.strip()) == (403, f"Use {URL}")


def test_a_restart_of_the_web_tier_costs_no_request(site: Site) -> None:
    answered: dict[str, list[int]] = {kind: [] for kind in PROXIES}
    enough = threading.Event()

    def work(kind: str) -> None:
        agent = site.proxies[kind].visit(site.key)
        while not enough.is_set():
            answered[kind].append(agent.get(f"{URL}/api/v1/models", timeout=MOST_S).status_code)
            answered[kind].append(agent.post(f"{URL}/api/v1/generate", json={}, timeout=MOST_S).status_code)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in PROXIES for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(len(statuses) > 20 for statuses in answered.values()), MOST_S)
    site.restart_web()
    before = {kind: len(statuses) for kind, statuses in answered.items()}
    wait_until(lambda: all(len(answered[kind]) > before[kind] + 20 for kind in PROXIES), MOST_S)
    enough.set()
    for thread in threads:
        thread.join(MOST_S)
    assert {(kind, status) for kind in PROXIES for status in answered[kind]} == {
        (kind, status) for kind in PROXIES for status in (200, 400)
    }


def test_events_come_as_they_happen_and_a_wait_as_long_as_it_was_asked_for(site: Site, proxy: Proxy) -> None:
    agent = proxy.visit(site.key)
    site.stack.wait_ready()
    with site.paused():
        order = {"prompt": "a red circle", "width": 64, "height": 64}
        job = agent.post(f"{URL}/api/v1/generate", json=order, timeout=MOST_S).json()
        events = agent.get(f"{URL}/api/v1/events/{job['job_id']}", stream=True, timeout=5)
        lines = events.iter_lines(chunk_size=1, decode_unicode=True)
        assert [next(lines), next(lines)][1] == "event: state"  # the job has not even begun
        waited = agent.get(f"{URL}{job['status_url']}?wait=0.2", timeout=MOST_S)
        assert waited.json()["state"] == "queued"
    assert "event: done" in list(lines)


def test_a_picture_is_found_by_its_absolute_url(site: Site) -> None:
    agent = site.proxies["nginx"].visit(site.key)
    site.stack.wait_ready()
    order = {"prompt": "a red circle", "size": "64x64", "response_format": "url"}
    done = agent.post(f"{URL}/v1/images/generations", json=order, timeout=MOST_S).json()
    url = done["data"][0]["url"]
    assert url.startswith(f"{URL}/outputs/")
    for proxy in site.proxies.values():
        assert proxy.visit().get(url, timeout=MOST_S).content.startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", PROXIES)
def test_a_request_without_an_answer_is_sent_once_and_refused_as_the_service_would(kind: str, tmp_path: Path) -> None:
    dying = HangsUp()
    with run_proxy(kind, tmp_path / kind, dying.port) as proxy:
        headers = {"Idempotency-Key": "once"}
        answer = proxy.visit().post(f"{URL}/api/v1/generate", json={"prompt": "x"}, headers=headers, timeout=MOST_S)
    known = HTTP_ERRORS[Unavailable]
    assert (answer.status_code, answer.headers["Retry-After"]) == (known.status, "5")
    assert answer.headers["Content-Type"] == "application/json"
    told = answer.json()
    assert {**told, "message": ""} == {
        "success": False,
        "error": known.error,
        "code": Unavailable.code,
        "message": "",
        "retry_after": 5,
    }
    assert dying.heads == [b"POST /api/v1/generate HTTP/1.1"]


def test_nginx_waits_for_an_answer_longer_than_any_takes() -> None:
    stated = re.search(r"^\s*proxy_read_timeout (\d+)s;", (EXAMPLES / "nginx.conf").read_text(), re.MULTILINE)
    assert stated
    assert int(stated[1]) > MAX_WAIT_S


def test_where_nothing_was_set_the_development_key_is_refused_and_all_clients_count_as_one(tmp_path: Path) -> None:
    with ExitStack() as exits:
        forgotten = Stack(tmp_path / "data", exits, UMRGEN_AUTH__FAILURES_PER_MINUTE=str(FAILURES))
        forgotten.start_api()
        port = int(forgotten.url.rpartition(":")[2])
        proxies = [exits.enter_context(run_proxy(kind, tmp_path / kind, port)) for kind in PROXIES]

        def ask(proxy: Proxy, address: str) -> int:
            return proxy.visit(DEVELOPMENT_KEY, address).get(f"{URL}/api/v1/me", timeout=MOST_S).status_code

        assert [ask(proxy, "127.1.0.2") for proxy in proxies] == [401, 401]
        assert ask(proxies[0], "127.1.0.2") == 401
        assert [ask(proxy, "127.2.0.2") for proxy in proxies] == [429, 429]
        assert forgotten.http.get(f"{forgotten.url}/api/v1/me", timeout=MOST_S).status_code == 200
