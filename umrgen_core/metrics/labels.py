"""The values that labels may have. Each set is closed, so that nobody outside can make new series."""

from __future__ import annotations

from collections.abc import Iterable

from umrgen_core.jobs import ErrorCode, JobState

OTHER = "other"
"""Stands for a value that is in no set, such as a model that was served once."""

STAGES = ("queued", "load_references", "load_model", "encode", "denoise", "decode", "check", "save", "total")
"""The stages of a job, as its timings name them."""

CACHES = ("prompt", "reference")
"""What pipelines keep, as the answer of a completed job names it."""

STAGE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
STORE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
REQUEST_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
LOAD_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

ENDS = ((JobState.COMPLETED, ""), (JobState.CANCELLED, ""), *((JobState.FAILED, code) for code in ErrorCode))
"""The ways in which a job ends: state and error code."""


class Models:
    """The label of a model: its name where the settings serve it."""

    def __init__(self, served: Iterable[str]) -> None:
        self.names = (*served,)
        self._known = frozenset(self.names)

    def label(self, model: str) -> str:
        """The model's name, or `other`."""
        return model if model in self._known else OTHER
