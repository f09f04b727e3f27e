"""An owner who changes his mind half way, or whose terminal goes: what was begun is undone, and that in peace."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_all() -> None:
    """Let every signal that asks us to stop raise KeyboardInterrupt, as Ctrl-C does, so that things are undone."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Be deaf to them meanwhile, and so are the commands that are run."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
