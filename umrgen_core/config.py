"""config.toml and UMRGEN_* variables become one frozen Settings; an unknown key is an error.

`UMRGEN_SECTION__KEY` in the environment overrides `[section] key`. Relative paths are relative to the
folder of the config file.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import HUB_PREFIX, PACKAGE_PREFIX, ModelProfile

PREFIX = "UMRGEN_"
CLIENT_VARIABLES = frozenset({"UMRGEN_URL", "UMRGEN_API_KEY"})
"""What `umrgen` and the Python client read; no settings, but often set in the same shell."""

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]


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
    poll_s: Seconds = 1
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


class LogSettings(Section):
    """How much is logged and how much of it is kept below data_dir."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file_bytes: Bytes = 10_000_000
    files: Annotated[int, Field(ge=2, le=1000)] = 5


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    api: ApiSettings = ApiSettings()
    storage: StorageSettings = StorageSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    uploads: UploadSettings = UploadSettings()
    jobs: JobSettings = JobSettings()
    files: FileSettings = FileSettings()
    infer: InferSettings = InferSettings()
    mcp: McpSettings = McpSettings()
    safety: SafetySettings = SafetySettings()
    webhooks: WebhookSettings = WebhookSettings()
    log: LogSettings = LogSettings()
    models: dict[str, ModelProfile] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file."""
        return env_settings, init_settings

    @field_validator("models")
    @classmethod
    def _names_are_plain(cls, models: dict[str, ModelProfile]) -> dict[str, ModelProfile]:
        for name in models:
            if not name[:1].isalnum() or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name):
                raise ValueError(
                    f"model name {name!r} may hold letters, digits, '-', '_' and '.', and begins with none of the last"
                )
        return models

    @model_validator(mode="after")
    def _served_models_exist(self) -> Settings:
        missing = [name for name in self.infer.models if name not in self.models]
        if missing:
            known = ", ".join(sorted(self.models)) or "none"
            raise ValueError(f"[infer] models names {missing}, which no [models.NAME] describes (described: {known})")
        return self

    @property
    def served_models(self) -> dict[str, ModelProfile]:
        """The models that requests may name, the default first."""
        return {name: self.models[name] for name in self.infer.models}

    @property
    def secret_path(self) -> Path:
        """The file of the master secret."""
        return Path(self.auth.secret_file) if self.auth.secret_file else self.storage.data_dir / "secret"

    @property
    def default_model(self) -> str:
        """The model of a request: the first that is served."""
        return self.infer.models[0]


def load_settings(path: Path) -> Settings:
    """Read `path` and the environment. Raises ConfigError with every problem, one a line."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name one with --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    _reject_unknown_variables()
    try:
        settings = Settings(**tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(problem) for problem in error.errors())) from None
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from None
    base = path.resolve().parent
    data_dir = (base / settings.storage.data_dir).resolve()
    storage = settings.storage.model_copy(update={"data_dir": data_dir})
    secret = settings.auth.secret_file
    auth = settings.auth.model_copy(update={"secret_file": str((base / secret).resolve()) if secret else ""})
    lists = settings.safety.lists
    safety = settings.safety.model_copy(update={"lists": str((base / lists).resolve()) if lists else ""})
    loras = settings.infer.loras
    infer = settings.infer.model_copy(update={"loras": str((base / loras).resolve()) if loras else ""})
    models = {name: _with_absolute_path(profile, base) for name, profile in settings.models.items()}
    return settings.model_copy(
        update={"storage": storage, "auth": auth, "safety": safety, "infer": infer, "models": models}
    )


def _with_absolute_path(profile: ModelProfile, base: Path) -> ModelProfile:
    kept = (PACKAGE_PREFIX, HUB_PREFIX)
    paths = {name: getattr(profile, name) for name in ("path", "ip_adapter", "fused_lora")}
    absolute = {name: str(base / path) for name, path in paths.items() if path and not path.startswith(kept)}
    return profile.model_copy(update=absolute)


def _reject_unknown_variables() -> None:
    sections = ", ".join(Settings.model_fields)
    for name in os.environ:
        if not name.upper().startswith(PREFIX) or name in CLIENT_VARIABLES:
            continue
        section, _, key = name[len(PREFIX) :].lower().partition("__")
        if section not in Settings.model_fields or not key:
            raise ConfigError(
                f"{name}: names no setting; the form is {PREFIX}SECTION__KEY and the sections are {sections}"
            )


def _describe(problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    name = f"[{'.'.join(where[:-1])}] {where[-1]}" if len(where) > 1 else "".join(where) or "config"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown key; known here: {_known_keys(where[:-1])}"
    return f"{name}: {message} (got {problem['input']!r})" if where else message


def _known_keys(where: list[str]) -> str:
    model: type[BaseModel] = Settings
    if where[:1] == ["models"]:
        model = ModelProfile
    elif where:
        model = type(Settings.model_fields[where[0]].default)
    return ", ".join(model.model_fields)
