"""The tables of config.toml: every key with its default and its bounds."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, model_validator

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
ListenAddress = Annotated[str, Field(pattern=r"^((\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):\d{1,5})?$")]


class Section(BaseModel):
    """A table of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ApiSettings(Section):
    """Where the web tier listens and how long it waits for a client."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 3088
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+)?$")] = ""
    body_timeout_s: Seconds = 60
    keepalive_s: Seconds = 75
    trusted_proxies: list[IPvAnyNetwork] = []
    cors_origins: list[Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.\-\[\]:]+)$")]] = []

    def listens_on_loopback(self) -> bool:
        """Whether only this machine can connect to the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class StorageSettings(Section):
    """Where everything that must survive is kept."""

    data_dir: Path = Path("var")
    lock_timeout_s: Seconds = 5
    retention_s: Seconds = 7 * 86_400
    reference_retention_s: Seconds = 7 * 86_400
    disk_floor_bytes: Bytes = 512 << 20
    ballast_bytes: Bytes = 64 << 20
    scrub_interval_s: Seconds = 1
    orphan_margin_s: Seconds = 60

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data_dir / "umrgen.sqlite3"


class AuthSettings(Section):
    """Who gets in without a key of their own."""

    development_key: Annotated[str, Field(pattern=r"^[\x21-\x7e]*$", max_length=200)] = ""
    development_key_public: bool = False
    failures_per_minute: Count = 60
    secret_file: str = ""


class LimitSettings(Section):
    """Defaults of every agent that has none of its own; queued_jobs is for all together."""

    concurrent_jobs: Count = 1
    rate_per_minute: Count = 60
    reads_per_minute: Count = 600
    references: Count = 500
    reference_bytes: Bytes = 1_000_000_000
    output_bytes: Bytes = 10_000_000_000
    queued_jobs: Count = 1000


class UploadSettings(Section):
    """What the sanitiser accepts and may cost."""

    processes: Annotated[int, Field(ge=1, le=64)] = 2
    memory_bytes: Annotated[int, Field(ge=256 << 20, le=1 << 36)] = 1 << 30
    cpu_s: Annotated[int, Field(ge=1, le=60)] = 5
    timeout_s: Seconds = 30
    waiting: Annotated[int, Field(ge=1, le=10_000)] = 32


class JobSettings(Section):
    """Leases, attempts and how long things may take."""

    lease_s: Seconds = 30
    heartbeat_s: Seconds = 10
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    deadline_s: Seconds = 600
    queue_ttl_s: Seconds = 86_400

    @model_validator(mode="after")
    def _heartbeat_fits_lease(self) -> JobSettings:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError(f"heartbeat_s must be at most half of lease_s ({self.lease_s / 2:g})")
        return self


class FileSettings(Section):
    """How pictures are served and what they carry."""

    require_key: bool = False
    embed_prompt: bool = False


class InferSettings(Section):
    """What the daemon serves and how it waits."""

    models: Annotated[list[str], Field(min_length=1, max_length=64)] = ["tiny-klein"]
    max_model_wait_s: Seconds = 30
    memory_bytes: Bytes = 0
    loras: str = ""
    poll_s: Annotated[float, Field(gt=0, le=60)] = 1
    stop_grace_s: Seconds = 20
    threads: Annotated[int, Field(ge=0, le=1024)] = 0


class McpSettings(Section):
    """Where the MCP server listens, and the web tier whose client it is."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 3089
    api_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+$")] = "http://127.0.0.1:3088"


class SafetySettings(Section):
    """What a prompt must pass before it is accepted, and a picture before it is published."""

    lists: str = ""
    output_check: Literal["", "opennsfw"] = ""
    output_threshold: Annotated[float, Field(ge=0, le=1)] = 0.8


class WebhookSettings(Section):
    """Where webhooks may go, and how many at a time."""

    allow_private: bool = False
    allow_http: bool = False
    timeout_s: Seconds = 15
    concurrent_attempts: Annotated[int, Field(ge=1, le=256)] = 16


class ConsoleSettings(Section):
    """The pages for people at /console."""

    enabled: bool = True
    session_s: Seconds = 12 * 3600
    admin_through_proxy: bool = False


class LogSettings(Section):
    """How much is logged and how much of it is kept below data_dir."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file_bytes: Bytes = 10_000_000
    files: Annotated[int, Field(ge=2, le=1000)] = 5


class MetricsSettings(Section):
    """Where each process shows its metrics, such as "127.0.0.1:9108"; nowhere when empty."""

    api_listen: ListenAddress = ""
    infer_listen: ListenAddress = ""


class TraceSettings(Section):
    """Where spans are sent."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^@\s]+)?$")] = ""
