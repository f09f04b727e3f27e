"""Whether a profile fits its pipeline: found out before weights are read, from diffusers' own signatures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import diffusers
from PIL import Image

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import MIN_SIDE_PX, ModelProfile, ReferencesAs
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines.call import build_arguments
from umrgen_infer.pipelines.families import find_family

SAMPLE_SIZE = (MIN_SIDE_PX, MIN_SIDE_PX)


def find_class(name: str, key: str, pipeline: str) -> Any:
    """A pipeline class of diffusers. Raises ConfigError where there is none of that name."""
    found = getattr(diffusers, pipeline, None)
    if isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline):
        return found
    raise ConfigError(f"[models.{name}] {key}: diffusers {diffusers.__version__} has no {pipeline}")


def require_fit(name: str, profile: ModelProfile) -> tuple[Any, Any]:
    """The profile's pipeline class, and the one for requests with references or None.

    Raises ConfigError with the name of the first argument that the pipeline does not take.
    """
    plain = find_class(name, "pipeline", profile.pipeline)
    other = profile.reference_pipeline
    with_references = find_class(name, "reference_pipeline", other) if other else None
    for commission in _samples(profile):
        called = (with_references or plain) if commission.references else plain
        _require_arguments(name, called, profile, commission)
    _require_adapter(name, profile, plain)
    _require_negative(name, profile, plain, with_references)
    return plain, with_references


def _samples(profile: ModelProfile) -> Iterator[Commission]:
    """One commission for each way in which the pipeline will be called."""
    picture = Image.new("RGB", SAMPLE_SIZE)
    for count in {profile.min_references, profile.references}:
        yield Commission("", "ugly", *SAMPLE_SIZE, profile.steps, 0, (picture,) * count)


def _require_arguments(name: str, called: Any, profile: ModelProfile, commission: Commission) -> None:
    # `**kwargs` would swallow anything: SDXL has one, so that a misspelt argument goes unnoticed there.
    known = list_arguments(called)
    for argument in build_arguments(profile, commission):
        if argument not in known:
            raise ConfigError(
                f"[models.{name}]: {called.__name__} takes no argument {argument!r}; it takes {', '.join(known)}"
            )


def list_arguments(called: Any) -> list[str]:
    """The arguments that a pipeline names, without `self`."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(called.__call__).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in named and parameter.name != "self"]


def _require_adapter(name: str, profile: ModelProfile, plain: Any) -> None:
    if profile.references_as is ReferencesAs.IP_ADAPTER and not hasattr(plain, "load_ip_adapter"):
        raise ConfigError(f"[models.{name}] ip_adapter: {plain.__name__} takes no IP-Adapter")


def _require_negative(name: str, profile: ModelProfile, *called: Any) -> None:
    """Refuse a promise that the pipeline would break without a word."""
    for pipeline in called if profile.negative else ():
        needs = find_family(pipeline.__name__).negative_needs if pipeline else None
        if needs is None:
            continue
        argument, floor = needs
        default = inspect.signature(pipeline.__call__).parameters[argument].default
        named = profile.guidance_argument == argument
        value = profile.guidance if named else profile.arguments.get(argument, default)
        if value <= floor:
            raise ConfigError(
                f"[models.{name}] negative: {pipeline.__name__} reads a negative prompt only with {argument} above "
                f"{floor:g}, and it is {value:g}; set negative = false, or raise the guidance"
            )
