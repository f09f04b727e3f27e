"""The shipped examples in front of a service of the tests: only addresses, certificates and folders are put in."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool

from tests.conftest import ROOT
from tests.e2e.conftest import wait_until

EXAMPLES = ROOT / "deploy" / "proxies"
NAME = "umrgen.example"
PROXIES = ("nginx", "caddy")
COMMANDS = {kind: shutil.which(kind, path=f"{os.environ.get('PATH', '')}:/usr/sbin") for kind in PROXIES}
"""Where each is installed; Debian's nginx is not on everybody's path."""

# What Debian's nginx.conf says where it reads conf.d/, with a folder of its own.
NGINX_MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    gzip on;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/1;
    uwsgi_temp_path {folder}/2;
    scgi_temp_path {folder}/3;
    include {folder}/umrgen.conf;
}}
"""
# Added to the example's own: certificates of its own making, and nothing beyond loopback.
CADDY_GLOBAL = """
{{
	admin off
	local_certs
	skip_install_trust
	default_bind 127.0.0.1
	https_port {tls}
	http_port {plain}
"""


@dataclass(frozen=True)
class Proxy:
    """A running proxy, whose certificate `authority` vouches for."""

    tls: int
    plain: int
    authority: Path

    def visit(self, key: str = "", address: str = "127.0.0.1") -> requests.Session:
        """A client at `address` that finds the proxy under its name, as if it were on the usual ports."""
        session = requests.Session()
        session.trust_env = False
        session.headers["Host"] = NAME
        if key:
            session.headers["Authorization"] = f"Bearer {key}"
        session.mount("https://", _Way(self, address))
        session.mount("http://", _Way(self, address))
        return session

    def curl(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        """What curl gets over HTTP/2, followed by the version and the status."""
        where = ["--connect-to", f"{NAME}:443:127.0.0.1:{self.tls}", "--cacert", str(self.authority)]
        command = ["curl", "-sS", "--http2", "-m", "30", *where, "-w", " %{http_version} %{http_code}", *options]
        return subprocess.run([*command, f"https://{NAME}{path}"], capture_output=True, text=True, check=False)


class _Way(HTTPAdapter):
    """Leads to the proxy whatever the URL's host."""

    def __init__(self, proxy: Proxy, address: str) -> None:
        self._proxy, self._address = proxy, address
        super().__init__()

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None) -> HTTPConnectionPool:  # type: ignore[no-untyped-def]
        options: dict[str, object] = {"source_address": (self._address, 0)}
        is_tls = (request.url or "").startswith("https:")
        if is_tls:
            options |= {"server_hostname": NAME, "assert_hostname": NAME, "ca_certs": str(self._proxy.authority)}
        port = self._proxy.tls if is_tls else self._proxy.plain
        return self.poolmanager.connection_from_host("127.0.0.1", port, "https" if is_tls else "http", options)

    def cert_verify(self, conn, url, verify, cert) -> None:  # type: ignore[no-untyped-def]
        """The pool knows its authority."""


@contextmanager
def run_proxy(kind: str, folder: Path, upstream: int) -> Iterator[Proxy]:
    """nginx or Caddy with its example, before the web tier at the port `upstream`."""
    folder.mkdir(parents=True)
    proxy, command = (_set_up_nginx if kind == "nginx" else _set_up_caddy)(folder, upstream)
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            wait_until(lambda: process.poll() is not None or _takes_connections(proxy), 20)
            assert process.poll() is None, (folder / "log").read_text()
            yield proxy
        finally:
            process.terminate()
            process.wait(20)


def fill_in(text: str, *pairs: tuple[str, str]) -> str:
    """The example with each of the first put in place of, where it stands."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def _set_up_nginx(folder: Path, upstream: int) -> tuple[Proxy, list[str]]:
    proxy = Proxy(find_free_port(), find_free_port(), folder / "certificate.pem")
    _make_certificate(proxy.authority, folder / "key.pem")
    example = fill_in(
        (EXAMPLES / "nginx.conf").read_text(encoding="utf-8"),
        ("    listen [::]:443 ssl http2;\n    ", "    "),
        ("    listen [::]:80;\n    ", "    "),
        ("listen 443 ", f"listen 127.0.0.1:{proxy.tls} "),
        ("listen 80;", f"listen 127.0.0.1:{proxy.plain};"),
        ("/etc/letsencrypt/live/umrgen.example/fullchain.pem", str(proxy.authority)),
        ("/etc/letsencrypt/live/umrgen.example/privkey.pem", str(folder / "key.pem")),
        ("127.0.0.1:3088", f"127.0.0.1:{upstream}"),
    )
    (folder / "umrgen.conf").write_text(example)
    # Its workers would else be somebody who may not read the tests' folders.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder, user=user))
    return proxy, [
        str(COMMANDS["nginx"]),
        "-p",
        str(folder),
        "-e",
        str(folder / "error.log"),
        "-c",
        str(folder / "nginx.conf"),
    ]


def _set_up_caddy(folder: Path, upstream: int) -> tuple[Proxy, list[str]]:
    proxy = Proxy(find_free_port(), find_free_port(), folder / "caddy" / "pki" / "authorities" / "local" / "root.crt")
    example = fill_in(
        (EXAMPLES / "Caddyfile").read_text(encoding="utf-8"),
        ("\n{\n", CADDY_GLOBAL.format(tls=proxy.tls, plain=proxy.plain)),
        ("127.0.0.1:3088", f"127.0.0.1:{upstream}"),
    )
    (folder / "Caddyfile").write_text(example)
    return proxy, [str(COMMANDS["caddy"]), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _make_certificate(certificate: Path, key: Path) -> None:
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    of = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-out", certificate, "-keyout", key]
    subprocess.run(["openssl", "req", "-x509", *kind, *of], check=True, capture_output=True)


def _takes_connections(proxy: Proxy) -> bool:
    with suppress(OSError):
        context = ssl.create_default_context(cafile=proxy.authority)
        with (
            socket.create_connection(("127.0.0.1", proxy.tls), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=NAME),
        ):
            return True
    return False


def find_free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
