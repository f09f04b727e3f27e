"""A registry for one process, with what the process is and what it takes."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Info, ProcessCollector, disable_created_metrics

from umrgen_core import __version__
from umrgen_core.schema import SCHEMA_VERSION
from umrgen_core.sqlite import sqlite_version


def make_registry(process: str) -> CollectorRegistry:
    """A new registry for a process such as "api", with its build and the kernel's figures about it."""
    # No series for the time at which each counter was made: nothing asks for it, and the client has one switch for all.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info("umrgen_build", "What runs.", registry=registry)
    build.info(
        {
            "process": process,
            "version": __version__,
            "schema": str(SCHEMA_VERSION),
            "python": platform.python_version(),
            "sqlite": sqlite_version,
        }
    )
    return registry
