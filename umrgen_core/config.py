"""config.toml and UMRGEN_* variables become one frozen Settings; an unknown key is an error.

`UMRGEN_SECTION__KEY` in the environment overrides `[section] key`. Relative paths are relative to the
folder of the config file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import HUB_PREFIX, PACKAGE_PREFIX, ModelProfile
from umrgen_core.sections import (
    ApiSettings,
    AuthSettings,
    ConsoleSettings,
    FileSettings,
    InferSettings,
    JobSettings,
    LimitSettings,
    LogSettings,
    McpSettings,
    MetricsSettings,
    SafetySettings,
    StorageSettings,
    TraceSettings,
    UploadSettings,
    WebhookSettings,
)

PREFIX = "UMRGEN_"
CLIENT_VARIABLES = frozenset({"UMRGEN_URL", "UMRGEN_API_KEY"})
"""What `umrgen` and the Python client read; no settings, but often set in the same shell."""


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
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()
    trace: TraceSettings = TraceSettings()
    metrics: MetricsSettings = MetricsSettings()
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

    @model_validator(mode="after")
    def _metrics_have_ports_of_their_own(self) -> Settings:
        taken = {self.api.port: "[api] port"}
        for key, address in self.metrics:
            port = int(address.rpartition(":")[2] or 0)
            if port > 65535:
                raise ValueError(f"[metrics] {key}: a port is at most 65535")
            if port and port in taken:
                raise ValueError(f"[metrics] {key} needs a port of its own; {port} is that of {taken[port]}")
            taken[port] = f"[metrics] {key}"
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
    return with_absolute_paths(settings, path.resolve().parent)


def with_absolute_paths(settings: Settings, base: Path) -> Settings:
    """The settings with every path that is relative taken from `base`, the folder of the config file."""
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
