"""One running service for the tests of everything that speaks HTTP to it."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from tests.e2e.conftest import Stack
from tests.ending import END_OF_RUN


@functools.cache
def shared_service() -> Stack:
    """Both daemons over a store of their own, stopped when the test run ends."""
    folder = Path(tempfile.mkdtemp(prefix="umrgen-client-"))
    END_OF_RUN.callback(shutil.rmtree, folder, ignore_errors=True)
    service = Stack(folder / "data", END_OF_RUN, UMRGEN_LIMITS__RATE_PER_MINUTE="1000000", UMRGEN_INFER__THREADS="1")
    service.start_infer()
    service.start_api()
    service.wait_ready()
    return service
