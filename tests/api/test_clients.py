from __future__ import annotations

import ipaddress

import pytest

from tests.api.conftest import Server, StartServer
from umrgen_api.clients import find_address

TRUSTED = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "found"),
    [
        ("127.0.0.1", [], [], "127.0.0.1"),
        ("127.0.0.1", ["1.2.3.4"], [], "127.0.0.1"),
        ("127.0.0.1", ["1.2.3.4"], TRUSTED, "1.2.3.4"),
        ("127.0.0.1", ["6.6.6.6, 1.2.3.4"], TRUSTED, "1.2.3.4"),
        ("127.0.0.1", ["6.6.6.6", "1.2.3.4, 10.0.0.7"], TRUSTED, "1.2.3.4"),
        ("9.9.9.9", ["1.2.3.4"], TRUSTED, "9.9.9.9"),
        ("127.0.0.1", ["nonsense"], TRUSTED, "127.0.0.1"),
        ("127.0.0.1", ["2001:db8::1"], TRUSTED, "2001:db8::1"),
        (None, ["1.2.3.4"], TRUSTED, "None"),
    ],
)
def test_only_trusted_proxies_are_believed_and_only_about_their_own_peer(peer, forwarded, trusted, found) -> None:
    assert str(find_address(peer, forwarded, trusted)) == found


async def fail(server: Server, times: int, **headers: str) -> list[int]:
    headers = {"Authorization": "Bearer wrong", **headers}
    return [(await server.call("GET", "/api/v1/references", headers=headers))[0] for _ in range(times)]


async def test_too_many_refused_keys_are_limited_while_a_valid_key_always_passes(start_server: StartServer) -> None:
    server = await start_server(auth={"failures_per_minute": 3})
    assert await fail(server, 5) == [401, 401, 401, 429, 429]
    status, body, headers = await server.call("GET", "/api/v1/references", headers={"Authorization": "Bearer wrong"})
    assert (status, body["code"], body["kind"]) == (429, "rate_limit", "failure")
    assert int(headers["Retry-After"]) >= 1
    assert (await server.call("GET", "/api/v1/references"))[0] == 200


async def test_networks_behind_a_trusted_proxy_have_budgets_of_their_own(start_server: StartServer) -> None:
    server = await start_server(auth={"failures_per_minute": 1}, api={"trusted_proxies": ["127.0.0.0/8"]})
    assert await fail(server, 2, **{"X-Forwarded-For": "1.2.3.4"}) == [401, 429]
    assert await fail(server, 1, **{"X-Forwarded-For": "1.2.3.250"}) == [429]
    assert await fail(server, 1, **{"X-Forwarded-For": "1.2.4.4"}) == [401]


async def test_a_forwarded_address_buys_nothing_from_a_proxy_that_is_not_trusted(start_server: StartServer) -> None:
    server = await start_server(auth={"failures_per_minute": 1})
    assert await fail(server, 1, **{"X-Forwarded-For": "1.2.3.4"}) == [401]
    assert await fail(server, 1, **{"X-Forwarded-For": "5.6.7.8"}) == [429]
