"""A profile's scheduler settings in place of those beside the weights."""

from __future__ import annotations

import inspect
from typing import Any

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile


def override_scheduler(name: str, profile: ModelProfile, pipeline: Any) -> None:
    """Give the pipeline a scheduler of the same class with the profile's settings. Raises ConfigError."""
    if not profile.scheduler:
        return
    scheduler = pipeline.scheduler
    known = inspect.signature(type(scheduler).__init__).parameters
    for key in profile.scheduler:
        if key not in known or key == "self":
            raise ConfigError(f"[models.{name}] scheduler: {type(scheduler).__name__} takes no setting {key!r}")
    settings = {key: _read(key, value, scheduler, known[key].default) for key, value in profile.scheduler.items()}
    try:
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[models.{name}] scheduler: {error}") from None


def _read(key: str, value: Any, scheduler: Any, default: Any) -> Any:
    """TOML has no word for None: `false` stands for it where the setting is not a yes or no."""
    if value is not False:
        return value
    is_switch = isinstance(default, bool) or isinstance(scheduler.config.get(key), bool)
    return False if is_switch else None
