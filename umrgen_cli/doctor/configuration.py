"""Whether config.toml can be read, and what in it is dangerous."""

from __future__ import annotations

from collections.abc import Iterator

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning


def check_parsing(patient: Patient) -> Iterator[Finding]:
    """Every problem that keeps both processes from starting."""
    for line in patient.config_problems:
        yield problem("configuration", line, f"correct {patient.config}; neither process starts until then")
    if not patient.config_problems:
        yield good("configuration", f"{patient.config} can be read")


def check_exposure(patient: Patient) -> Iterator[Finding]:
    """Who can reach the service, and whether with a key that everybody knows."""
    auth, where = patient.settings.auth, ", ".join(map(str, patient.addresses))
    is_local = all(address.is_local for address in patient.addresses)
    if auth.development_key and auth.development_key_public:
        yield problem(
            "development key",
            "the key of the guide, which everybody knows, counts from every machine",
            "set [auth] development_key_public = false, or development_key = \"\" and mint keys with 'agents create'",
        )
    elif auth.development_key and (patient.settings.api.public_url or not is_local):
        yield problem(
            "development key",
            "on, though others can reach the service: the web tier does not start like that",
            "set [auth] development_key = \"\", and mint keys with 'agents create'",
        )
    elif auth.development_key:
        yield warning(
            "development key",
            "on; it counts from this machine only",
            'set [auth] development_key = "" once agents have keys of their own',
        )
    else:
        yield good("development key", "off")
    if is_local:
        yield good("address", f"{where}, this machine only")
        return
    yield good("address", f"{where}, reachable from other machines")
    yield from _check_outside(patient)


def _check_outside(patient: Patient) -> Iterator[Finding]:
    api = patient.settings.api
    if not api.public_url:
        yield warning(
            "public_url",
            "not set, though other machines reach the service: webhooks and OpenAI's url form have no address to name",
            'set [api] public_url = "https://…" to what agents call the service by',
        )
    elif api.public_url.startswith("http://"):
        yield warning(
            "public_url",
            f"{api.public_url}: keys travel unencrypted",
            "put a TLS proxy before it, and name it with https://",
        )
    if not api.trusted_proxies:
        yield warning(
            "trusted_proxies",
            "empty: behind a proxy all agents would share one address and its limits",
            "name the proxy's network in [api] trusted_proxies; leave it empty where there is no proxy",
        )


def check_openings(patient: Patient) -> Iterator[Finding]:
    """Settings that are meant for tests."""
    hooks = patient.settings.webhooks
    for name, is_open in (("allow_private", hooks.allow_private), ("allow_http", hooks.allow_http)):
        if is_open:
            what = "this machine and private networks" if name == "allow_private" else "unencrypted addresses"
            yield warning(
                f"webhooks.{name}",
                f"true: any agent may have {what} called",
                f"set [webhooks] {name} = false unless every agent is trusted",
            )
