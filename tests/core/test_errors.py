from __future__ import annotations

import errno
import re

import pytest

from umrgen_core import errors
from umrgen_core.errors import (
    CANNOT_START,
    ConfigError,
    FieldProblem,
    InvalidRequest,
    RequestError,
    SchemaError,
    UmrgenError,
    Unavailable,
    find_exit_status,
)

ABSTRACT = {UmrgenError, RequestError}


def list_classes(parent: type[UmrgenError] = UmrgenError) -> list[type[UmrgenError]]:
    children = [kind for kind in parent.__subclasses__() if kind.__module__ == errors.__name__]
    return [parent, *(kind for child in children for kind in list_classes(child))]


def read_drawn_tree() -> dict[str, str | None]:
    """Name of each class in the drawing, with the name of its parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines()[2:]:
        drawn = re.match(r"([│├└─ ]*)(\w+)", line)
        assert drawn is not None, line
        depth = len(drawn[1]) // 4
        path = [*path[:depth], drawn[2]]
        parents[drawn[2]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in list_classes()} | {"UmrgenError": None}
    assert read_drawn_tree() == real


def test_every_class_has_a_code_of_its_own() -> None:
    codes = {kind.__name__: kind.__dict__.get("code") for kind in list_classes() if kind not in ABSTRACT}
    assert None not in codes.values()
    assert len(set(codes.values())) == len(codes)


def test_codes_are_snake_case() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code) for kind in list_classes())


def test_an_invalid_request_carries_one_problem_for_each_field() -> None:
    error = InvalidRequest(
        [FieldProblem("width", "must be at least 64", 64, 64), FieldProblem("prompt", "is required")]
    )
    assert error.message == "width: must be at least 64; prompt: is required"
    assert error.extra["errors"] == [
        {"field": "width", "problem": "must be at least 64", "limit": 64, "nearest": 64},
        {"field": "prompt", "problem": "is required"},
    ]


def test_only_what_passes_by_itself_is_worth_a_retry() -> None:
    assert RequestError("no").retry_after_s is None
    assert Unavailable("busy").retry_after_s > 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("[api] port: …"), CANNOT_START),
        (SchemaError("too old"), CANNOT_START),
        (OSError(errno.EADDRINUSE, "address in use"), CANNOT_START),
        (PermissionError(errno.EACCES, "permission denied"), CANNOT_START),
        (OSError(errno.ENOSPC, "no space left"), 1),
        (OSError(errno.EIO, "input/output error"), 1),
        (BlockingIOError(errno.EAGAIN, "no more processes"), 1),
        (OSError(errno.EBUSY, "busy"), 1),
        (Unavailable("The store is busy."), 1),
    ],
)
def test_a_process_that_another_try_may_help_does_not_say_that_none_would(error: Exception, status: int) -> None:
    assert find_exit_status(error, was_ready=False) == status
    assert find_exit_status(error, was_ready=True) == 1
