"""Which model a name means. Tools name the models of OpenAI; here those mean the owner's."""

from __future__ import annotations

from collections.abc import Mapping

from umrgen_api.openai.errors import OpenAiError
from umrgen_core.profiles import ModelProfile

STAND_INS = ("gpt-image-", "chatgpt-image-", "dall-e-")
"""A name that begins so, and that no model here has, means the first model that can do what is asked."""

SHOWN_CHARS = 100
"""As much of an unknown name is repeated."""


def find_model(name: str | None, models: Mapping[str, ModelProfile], *, edits: bool = False) -> str:
    """The served model that `name` means; None means the same as a name of OpenAI's. Raises OpenAiError."""
    if name is not None and name in models:
        return name
    if name is None or name.startswith(STAND_INS):
        able = (own for own, profile in models.items() if _can(profile, edits=edits))
        return next(able, next(iter(models)))
    served, shown = ", ".join(models), name[:SHOWN_CHARS]
    message = f"The model '{shown}' does not exist here. There are: {served}."
    raise OpenAiError(404, "model_not_found", message, param="model")


def _can(profile: ModelProfile, *, edits: bool) -> bool:
    return profile.references > 0 if edits else profile.min_references == 0
