"""What the store and the runs tell of their work, for whoever counts it. This one counts nothing.

Each call is made once what it tells of is certain, in whatever thread that happens. A meter raises nothing and
takes microseconds: it is called on the way to every answer.
"""

from __future__ import annotations

from collections.abc import Mapping


class Meter:
    """Hears of everything and keeps nothing. Processes that are watched put one of their own in its place."""

    def wrote(self, items: int, lock_wait_s: float, took_s: float) -> None:
        """A write transaction of so many items has ended, well or not."""

    def write_failed(self) -> None:
        """A write transaction was given up; each of its callers was answered with Unavailable."""

    def read(self, took_s: float) -> None:
        """A statement of the reader has been answered."""

    def read_failed(self) -> None:
        """The store could not be read."""

    def job_accepted(self, model: str) -> None:
        """A new job is on disk."""

    def job_claimed(self, model: str) -> None:
        """A worker holds a job."""

    def job_completed(self, model: str, timings: Mapping[str, float], ran_with: Mapping[str, object]) -> None:
        """A job has ended with a picture; its stages in seconds, and what was in use."""

    def job_ended(self, model: str, state: str, error_code: str) -> None:
        """A job has ended otherwise: failed with its error code, or cancelled with none."""

    def job_requeued(self, model: str, reason: str) -> None:
        """A job is back in the queue: `given_back` in good order, `released` by a fault, or its `worker_lost`."""

    def webhook_tried(self, outcome: str) -> None:
        """An attempt at a webhook was `delivered`, is to be tried again (`delayed`), or was given up (`failed`)."""

    def run_ended(self, model: str, outcome: str, *, lease_lost: bool) -> None:
        """A run has come to one of its outcomes, and whether that was for want of a lease."""

    def model_loaded(self, model: str, took_s: float) -> None:
        """A model is ready to paint."""

    def model_not_loaded(self, model: str) -> None:
        """A model could not be loaded."""

    def model_evicted(self, model: str) -> None:
        """A model was pushed out of the device's memory."""

    def ran_out_of_memory(self, model: str) -> None:
        """A run found no room on the device; it is tried once more with more room, or fails."""

    def reference_wanted(self, *, kept: bool) -> None:
        """A decoded reference was asked for, and whether it was at hand."""

    def worker_changed(self, state: str) -> None:
        """The worker has entered one of its states."""


QUIET = Meter()
"""For those whom nobody watches."""
