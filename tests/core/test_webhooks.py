"""Where a webhook may go, when it is tried again, and what signs it."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from tests.conftest import make_settings
from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import ConfigError, InvalidRequest
from umrgen_core.loras import LoraShelf
from umrgen_core.requests import accept_request
from umrgen_core.sections import WebhookSettings
from umrgen_core.webhook_secrets import GRACE_S, derive_secret, list_secrets, read_master
from umrgen_core.webhooks import (
    JITTER,
    MAX_ATTEMPTS,
    MAX_CALLBACK_CHARS,
    RETRY_DELAYS_S,
    choose_delay_s,
    find_callback_problem,
    is_public,
)

PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "192.0.1.1",
    "168.63.129.15",
    "192.175.49.1",
    "2620:4f:8001::1",
    "2606:2800:220:1:248:1893:25c8:1946",
    "64:ff9b::5db8:d822",
]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
    *("198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "fe80::1", "fe80::1%eth0"),
    *(
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "2001:10::1",
        "2002:7f00:1::",
        "100::1",
    ),
    *("168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110"),
    *("192.31.196.0", "192.31.196.255", "192.52.193.1", "192.175.48.1", "2620:4f:8000::1"),
    *("2002:808:808::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "3fff::1", "5f00::1", "4000::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_open_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_private_local_shared_or_set_aside_is_not(address: str) -> None:
    assert not is_public(address)


def problem(url: str, *, allow_http: bool = False, allow_private: bool = False) -> str | None:
    return find_callback_problem(url, allow_http=allow_http, allow_private=allow_private)


@pytest.mark.parametrize(
    "url",
    [
        "https://agent.example/hook",
        "https://agent.example:8443/a/b?token=x%2Fy&z=1#part",
        "HTTPS://Agent.Example",
        "https://xn--bcher-kva.example/",
        "https://93.184.216.34/hook",
        "https://[2606:2800:220:1:248:1893:25c8:1946]:8443/hook",
        "https://localhost/",  # a name: judged by its addresses at each attempt
    ],
)
def test_an_https_url_of_a_name_or_a_public_address_is_taken(url: str) -> None:
    assert problem(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://agent.example/hook", "begin with https://"),
        ("ftp://agent.example/", "begin with https://"),
        ("file:///etc/passwd", "begin with https://"),
        ("//agent.example/hook", "begin with https://"),
        ("agent.example", "begin with https://"),
        ("", "begin with https://"),
        ("https://", "such as https://"),
        ("https:///hook", "such as https://"),
        ("https://agent.example:0/", "such as https://"),
        ("https://agent.example:99999/", "such as https://"),
        ("https://agent.example:port/", "such as https://"),
        ("https://[::1%25lo]/", "such as https://"),
        ("https://[1:2]/", "such as https://"),
        ("https://[2001", "such as https://"),
        ("https://a'b.example/", "such as https://"),
        ("https://user:pass@agent.example/", "no user name or password"),
        ("https://user@agent.example/", "no user name or password"),
        ("https://agent.example@127.0.0.1/", "no user name or password"),
        ("https://bücher.example/", "visible ASCII"),
        ("https://agent.example/a b", "visible ASCII"),
        ("https://agent.example/\r\nHost: x", "visible ASCII"),
        ("https://agent.example\\@127.0.0.1/", "visible ASCII"),
        ("https://agent.example/\x00", "visible ASCII"),
        ("https://127.0.0.1/hook", "private, local or reserved"),
        ("https://[::1]/hook", "private, local or reserved"),
        ("https://[::ffff:10.0.0.1]/hook", "private, local or reserved"),
        ("https://169.254.169.254/latest/meta-data", "private, local or reserved"),
        ("https://2130706433/", "private, local or reserved"),
        ("https://127.1/", "private, local or reserved"),
    ],
)
def test_any_other_url_is_refused_with_what_to_do(url: str, said: str) -> None:
    found = problem(url)
    assert found is not None
    assert said in found


def test_http_and_private_addresses_are_taken_where_the_owner_allows_them() -> None:
    assert problem("http://agent.example/", allow_http=True) is None
    assert problem("https://127.0.0.1/", allow_private=True) is None
    assert "https:// or http://" in str(problem("ftp://agent.example/", allow_http=True))
    assert problem("http://127.0.0.1:8080/x", allow_http=True, allow_private=True) is None


def accept(settings: Settings, url: object, **webhooks: bool):
    body = {"prompt": "a star", "callback_url": url}
    return accept_request(body, settings.served_models, LoraShelf(""), WebhookSettings(**webhooks))


def test_a_request_keeps_its_callback_as_it_was_written(settings: Settings) -> None:
    url = "https://Agent.example:443/%7Ehook?a=b+c"
    accepted = accept(settings, url)
    assert (accepted.callback_url, accepted.ignored) == (url, ())
    assert accept(settings, None).callback_url is None
    assert accept(settings, "http://127.0.0.1/", allow_http=True, allow_private=True).callback_url is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (7, "must be a string"),
        (["https://a.example"], "must be a string"),
        ("https://a.example/" + "x" * MAX_CALLBACK_CHARS, f"at most {MAX_CALLBACK_CHARS} characters"),
        ("http://a.example/", "must begin with https://"),
        ("https://10.1.2.3/", "must not be the address"),
    ],
)
def test_a_bad_callback_is_one_problem_of_its_field(settings: Settings, url: object, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        accept(settings, url)
    (found,) = refused.value.extra["errors"]
    assert found["field"] == "callback_url"
    assert said in found["problem"]


def test_a_callback_of_the_greatest_length_is_taken(settings: Settings) -> None:
    url = "https://a.example/".ljust(MAX_CALLBACK_CHARS, "x")
    assert accept(settings, url).callback_url == url


def test_eight_attempts_spread_over_a_day() -> None:
    delays = [choose_delay_s(attempts, lambda: 0.0) for attempts in range(1, MAX_ATTEMPTS + 1)]
    assert delays == [*RETRY_DELAYS_S, None]
    assert MAX_ATTEMPTS == 8
    assert 24 * 3600 <= sum(RETRY_DELAYS_S) <= 25 * 3600
    assert sorted(RETRY_DELAYS_S) == list(RETRY_DELAYS_S)
    assert choose_delay_s(1, lambda: 1.0) == RETRY_DELAYS_S[0] * (1 + JITTER)
    assert choose_delay_s(MAX_ATTEMPTS + 5, lambda: 1.0) is None


def test_the_master_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    master = read_master(path)
    assert len(bytes.fromhex(master.decode())) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_master(path) == master
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_master_that_cannot_serve_is_refused_with_its_place(tmp_path: Path) -> None:
    short, open_to_all, folder = tmp_path / "short", tmp_path / "open", tmp_path / "folder"
    short.write_bytes(b"x" * 31 + b"\n")
    short.chmod(0o600)
    open_to_all.write_bytes(b"x" * 32)
    open_to_all.chmod(0o644)
    folder.mkdir()
    for path, said in ((short, "holds 31 bytes"), (open_to_all, "chmod 600"), (folder, "directory")):
        with pytest.raises(ConfigError, match=said) as refused:
            read_master(path)
        assert str(path) in refused.value.message


def test_a_credential_of_the_service_manager_may_be_read_by_its_group(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    path.write_bytes(b"k" * 44)
    path.chmod(0o440)
    assert read_master(path) == b"k" * 44


def test_every_agent_version_and_master_has_a_secret_of_its_own() -> None:
    asked = [(b"m" * 32, "sid_ext_a", 1), (b"m" * 32, "sid_ext_a", 2), (b"m" * 32, "sid_ext_b", 1)]
    asked += [(b"n" * 32, "sid_ext_a", 1), (b"m" * 32, "sid_ext_a", 12)]
    secrets = [derive_secret(*one) for one in asked]
    assert len(set(secrets)) == len(secrets)
    assert secrets == [derive_secret(*one) for one in asked]
    for secret in secrets:
        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32


def test_after_a_change_both_secrets_sign_for_a_day() -> None:
    changed_us, master = 5_000_000, b"m" * 32
    new, old = (derive_secret(master, "s", version) for version in (3, 2))
    end_us = changed_us + GRACE_S * 1_000_000
    assert list_secrets(master, "s", 3, changed_us, changed_us) == [new, old]
    assert list_secrets(master, "s", 3, changed_us, end_us - 1) == [new, old]
    assert list_secrets(master, "s", 3, changed_us, end_us) == [new]
    assert list_secrets(master, "s", 1, None, 0) == [derive_secret(master, "s", 1)]


def test_the_secret_lies_in_the_data_folder_unless_it_is_named(tmp_path: Path) -> None:
    assert make_settings(tmp_path / "data").secret_path == tmp_path / "data" / "secret"
    path = tmp_path / "config.toml"
    path.write_text('[auth]\nsecret_file = "keys/master"\n[models.tiny-klein]\npipeline = "P"\npath = "w"\n')
    assert load_settings(path).secret_path == tmp_path / "keys" / "master"
