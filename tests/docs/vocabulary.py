"""The events and fields that docs/logs.md describes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
EVENTS, _, FIELDS = PAGE.partition("\n## Events\n")[2].partition("\n## Fields\n")
FIELDS = FIELDS.partition("\n## ")[0]
EVERYWHERE = frozenset({"timestamp", "level", "event"})
CARRIED = frozenset({"request_id", "job_ids", "job_id", "agent", "fence", "attempt"})
"""What lines carry beside the fields of their event, as the page says of requests, runs and webhooks."""


@dataclass(frozen=True)
class Documented:
    """One row of the tables of events."""

    processes: frozenset[str]
    level: str
    fields: frozenset[str]


def read_row(row: tuple[str, ...]) -> Documented:
    return Documented(frozenset(row[1].split(", ")), row[2], frozenset(re.findall(r"`(\w+)`", row[3])))


ROWS = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \| (\w+) \|( .*?)? \| (.+) \|$", EVENTS, re.MULTILINE)
DOCUMENTED = {row[0]: read_row(row) for row in ROWS}
KINDS = dict(re.findall(r"^\| `(\w+)` \| ([a-z ]+) \| .+ \|$", FIELDS, re.MULTILINE))
