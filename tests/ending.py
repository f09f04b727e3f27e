"""What a whole run of the tests shares, and what is to be stopped at its end."""

from __future__ import annotations

from contextlib import ExitStack

END_OF_RUN = ExitStack()
"""Closed when the session of this process is over. Not atexit: a worker process of a parallel run never gets there."""
