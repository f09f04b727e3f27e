"""W3C Trace Context: the `traceparent` by which a request says which trace it is part of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TRACEPARENT_HEADER = "traceparent"
SAMPLED = 1
_FORM = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-[\x21-\x7e]{0,200})?"
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span, as others name it: trace of 128 bits, span of 64 bits, and whether it is recorded."""

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{SAMPLED if self.sampled else 0:02x}"


def parse_traceparent(value: str) -> TraceContext | None:
    """The span that a traceparent names, or None where it is not one. A later version may say more than we read."""
    match = _FORM.fullmatch(value)
    if match is None or (match["version"] == "00" and match["more"]):
        return None
    return TraceContext(int(match["trace"], 16), int(match["span"], 16), bool(int(match["flags"], 16) & SAMPLED))


def choose_traceparent(offered: Sequence[str]) -> str | None:
    """What to keep of the traceparent headers of a request: 55 characters, or None where there is not just one."""
    context = parse_traceparent(offered[0]) if len(offered) == 1 else None
    return None if context is None else str(context)
