from __future__ import annotations

import pytest

from umrgen_core.trace_context import choose_traceparent, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_traceparent_names_a_span_and_is_written_as_it_was_read() -> None:
    context = parse_traceparent(GOOD)
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled) == (int(TRACE, 16), int(SPAN, 16), True)
    assert str(context) == GOOD
    assert choose_traceparent([GOOD]) == GOOD


def test_what_is_kept_is_of_the_first_version_whatever_came() -> None:
    assert choose_traceparent([f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"]) == GOOD
    assert choose_traceparent([f"cc-{TRACE}-{SPAN}-00"]) == f"00-{TRACE}-{SPAN}-00"
    assert choose_traceparent([f"00-{TRACE}-{SPAN}-ff"]) == GOOD


@pytest.mark.parametrize(
    "bad",
    [
        "",
        GOOD + "-more",
        GOOD + "\n",
        GOOD.upper(),
        f" {GOOD}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 10_000}",
        "\u0660\u0660" + GOOD[2:],
    ],
)
def test_anything_else_is_no_traceparent(bad: str) -> None:
    assert parse_traceparent(bad) is None
    assert choose_traceparent([bad]) is None


def test_a_request_with_two_of_them_has_none() -> None:
    assert choose_traceparent([]) is None
    assert choose_traceparent([GOOD, GOOD]) is None
