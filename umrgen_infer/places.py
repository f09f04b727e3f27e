"""What may be told of an exception out of a pipeline: its message may quote the prompt, its place does not."""

from __future__ import annotations

import traceback


def find_place(error: BaseException) -> str:
    """The traceback without any message, that of what caused the exception first, as Python shows them."""
    cause = "" if error.__cause__ is None else f"{find_place(error.__cause__)}{type(error.__cause__).__name__}, then:\n"
    return cause + "".join(traceback.format_tb(error.__traceback__))
