from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.conftest import picture_bytes
from umrgen_mcp.callers import bearer_key, forwarding
from umrgen_mcp.preview import MAX_PREVIEW_BYTES, make_preview


def test_a_small_picture_is_shown_as_it_is() -> None:
    png = picture_bytes(100, 100)
    preview = make_preview(png)
    assert (preview.data, preview.mime_type, preview.whole) == (png, "image/png", True)


@pytest.mark.parametrize(("size", "limit"), [((1500, 700), MAX_PREVIEW_BYTES), ((400, 400), 3000)])
def test_a_large_picture_is_made_to_fit_whatever_is_in_it(size: tuple[int, int], limit: int) -> None:
    png = picture_bytes(*size)
    preview = make_preview(png, limit)
    assert len(preview.data) <= limit < len(png)
    assert (preview.mime_type, preview.whole) == ("image/jpeg", False)
    shown = Image.open(io.BytesIO(preview.data))
    assert max(shown.size) <= 1024
    assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.parametrize(
    ("headers", "peer", "sent"),
    [
        ({}, "127.0.0.1", {}),
        ({}, "::1", {}),
        ({}, "203.0.113.9", {"X-Forwarded-For": "203.0.113.9"}),
        ({}, "", {"X-Forwarded-For": "unknown"}),
        ({"x-forwarded-for": "198.51.100.7"}, "127.0.0.1", {"X-Forwarded-For": "198.51.100.7, 127.0.0.1"}),
        ({"X-Forwarded-Host": "a"}, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
        ({"forwarded": "for=1.2.3.4"}, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
    ],
)
def test_a_call_from_elsewhere_never_looks_like_one_of_this_machine(
    headers: dict[str, str], peer: str, sent: dict[str, str]
) -> None:
    assert forwarding(headers, peer) == sent


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  ", "Basic eA==", "Bearer a b", "Bearer é", "Bearer a\x00"])
def test_what_is_no_bearer_key_is_none(header: str) -> None:
    assert bearer_key(header) == ""
