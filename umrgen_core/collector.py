"""Python's garbage collector, kept from going through what a process never drops."""

from __future__ import annotations

import gc


def set_start_aside() -> None:
    """Take everything that the start has made out of the collector's rounds. Call it before models are loaded.

    A full round through the modules and lists of the web tier stops every request for 30 ms, one through torch and
    diffusers a run for 150. What is set aside is never collected, so the process does this once.
    """
    if gc.get_freeze_count():
        return
    gc.collect()
    gc.freeze()
