"""docs/admin.md names every command of umrgen-admin, and none that there is not."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from tests.conftest import ROOT
from umrgen_cli.admin import make_parser

DOCS = (ROOT / "docs" / "admin.md").read_text(encoding="utf-8")


def list_commands(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command in full, such as `queue pause`, with its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield before, parser
    for group in groups:
        for name, inner in group.choices.items():
            yield from list_commands(inner, f"{before} {name}".strip())


COMMANDS = dict(list_commands(make_parser()))


def test_every_command_is_in_the_table() -> None:
    table = re.findall(r"^\| (`.*`) \|", DOCS, re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`([^`]+)`", row)}
    assert named == {*COMMANDS}


def test_every_example_is_one_that_the_parser_takes() -> None:
    examples = re.findall(r"^umrgen-admin (.*?)(?:\s+#.*)?$", DOCS, re.MULTILINE)
    assert len(examples) > 10
    for example in examples:
        make_parser().parse_args(example.split())
