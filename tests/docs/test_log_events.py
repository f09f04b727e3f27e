"""docs/logs.md is the vocabulary of the logs: the sources log what it names, and nothing else."""

from __future__ import annotations

import re

import pytest

from tests.docs.logged import Logged, list_logged, read_source
from tests.docs.vocabulary import CARRIED, DOCUMENTED, EVENTS, KINDS, ROWS

ALL = list_logged()


@pytest.mark.parametrize("logged", ALL, ids=lambda logged: f"{logged.name}@{logged.place}")
def test_what_is_logged_is_documented_with_its_process_and_level(logged: Logged) -> None:
    assert logged.name in DOCUMENTED, f"{logged.place}: give {logged.name} a row in docs/logs.md"
    known = DOCUMENTED[logged.name]
    assert logged.level == known.level
    assert logged.fields <= known.fields
    assert not logged.process or logged.process in known.processes


def test_what_is_documented_is_logged_with_just_these_fields() -> None:
    logged: dict[str, frozenset[str]] = {}
    for one in ALL:
        logged[one.name] = logged.get(one.name, frozenset()) | one.fields
    assert {name: known.fields for name, known in DOCUMENTED.items()} == logged
    assert len(ROWS) == len(DOCUMENTED), "an event stands there twice"


def test_every_process_is_one_that_there_is_and_every_event_says_what_it_means() -> None:
    assert frozenset().union(*(known.processes for known in DOCUMENTED.values())) == {"api", "infer", "mcp"}
    assert len(re.findall(r"^\| `", EVENTS, re.MULTILINE)) == len(ROWS), "a row has not five cells"


def test_every_field_has_one_meaning_and_its_unit_in_its_name() -> None:
    assert {*KINDS} == CARRIED.union(*(known.fields for known in DOCUMENTED.values()))
    for name, kind in KINDS.items():
        assert name.endswith("_s") == (kind == "seconds"), name
        assert name.endswith("_bytes") == (kind == "bytes"), name


@pytest.mark.parametrize("source", ["LOG.info(name)", "LOG.info('a', **more)", "LOG.bind(a=1).info('a')"])
def test_an_event_or_field_that_is_not_written_out_is_found(source: str) -> None:
    with pytest.raises(AssertionError, match=r"x\.py:2"):
        list(read_source(f'LOG = get_logger("x")\n{source}', "umrgen_api/x.py"))
