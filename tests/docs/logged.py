"""What the sources log, read without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.conftest import ROOT

PROCESSES = {"umrgen_api": "api", "umrgen_infer": "infer", "umrgen_mcp": "mcp", "umrgen_core": "", "umrgen_cli": ""}
"""Packages, and the process that each is; the last two are part of several."""
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
STAGES = ("queued", "load_references", "load_model", "encode", "denoise", "decode", "check", "save", "total")


@dataclass(frozen=True)
class Logged:
    """One place where an event is logged."""

    name: str
    process: str
    level: str
    fields: frozenset[str]
    place: str


def list_logged() -> list[Logged]:
    paths = [path for package in PROCESSES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        found for path in paths for found in read_source(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]


def read_source(source: str, place: str) -> Iterator[Logged]:
    tree = ast.parse(source)
    loggers = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_get_logger(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        logger = node.func.value
        if (isinstance(logger, ast.Name) and logger.id in loggers) or is_get_logger(logger):
            assert node.func.attr in LEVELS, f"{place}:{node.lineno}: only events, on a logger that binds nothing"
            yield from read_call(node, node.func.attr, place)


def is_get_logger(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_logger"


def read_call(call: ast.Call, level: str, place: str) -> Iterator[Logged]:
    where = f"{place}:{call.lineno}"
    fields = {"exception"} if level == "exception" else set()
    for keyword in call.keywords:
        if keyword.arg is None:
            assert "stage" in ast.unparse(keyword.value), f"{where}: fields must be written out"
            fields |= {f"{stage}_s" for stage in STAGES}
        else:
            fields.add("exception" if keyword.arg == "exc_info" else keyword.arg)
    for name in read_names(call.args[0], where):
        process = PROCESSES[place.split("/", maxsplit=1)[0]]
        yield Logged(name, process, "error" if level == "exception" else level, frozenset(fields), where)


def read_names(node: ast.expr, where: str) -> list[str]:
    if isinstance(node, ast.IfExp):
        return read_names(node.body, where) + read_names(node.orelse, where)
    assert isinstance(node, ast.Constant), f"{where}: the name of an event must be written out"
    assert isinstance(node.value, str)
    return [node.value]
