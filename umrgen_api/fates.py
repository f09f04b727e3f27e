"""What becomes of an upload in the sanitiser, told in a few words of our own: the agent's reasons hold numbers."""

from __future__ import annotations

from enum import StrEnum

from umrgen_core.errors import InvalidImage, Unavailable


class Fate(StrEnum):
    """How the sanitiser was done with an upload."""

    ACCEPTED = "accepted"
    """A clean re-encode is kept."""
    NO_IMAGE = "no_image"
    """It is in none of the formats that are taken."""
    SIZE = "size"
    """Its sides or its area are outside the limits."""
    ANIMATED = "animated"
    """It moves."""
    DAMAGED = "damaged"
    """Its header or its content cannot be read."""
    TOO_INTRICATE = "too_intricate"
    """It is made of more parts than an honest picture has."""
    TOO_LARGE_DECODED = "too_large_decoded"
    """It asked for more memory or room than is allowed, and the child lived to say so."""
    KILLED = "killed"
    """A limit struck the child, or its decoder crashed."""
    TIMED_OUT = "timed_out"
    """It took longer than is allowed."""
    BUSY = "busy"
    """Too many waited already, or no child starts; it was not looked at."""
    REFUSED = "refused"
    """Another reason."""


_BEGINNINGS = (
    ("it is not a PNG", Fate.NO_IMAGE),
    ("it is animated", Fate.ANIMATED),
    ("it is damaged", Fate.DAMAGED),
    ("its ", Fate.DAMAGED),
    ("it has more than", Fate.TOO_INTRICATE),
    ("it has too many bytes", Fate.TOO_INTRICATE),
    ("it is a JPEG of more than", Fate.TOO_INTRICATE),
    ("decoding it takes", Fate.TOO_LARGE_DECODED),
    ("re-encoding it takes", Fate.TOO_LARGE_DECODED),
)


def tell_fate(error: InvalidImage | Unavailable) -> Fate:
    """The fate of an upload that came to nothing, from what its sender is answered."""
    if isinstance(error, Unavailable):
        return Fate.BUSY
    if error.__context__ is not None:  # no word from the child
        return Fate.TIMED_OUT if isinstance(error.__context__, TimeoutError) else Fate.KILLED
    reason = str(error.extra["reason"])
    if " pixels; " in reason:
        return Fate.SIZE
    return next((fate for beginning, fate in _BEGINNINGS if reason.startswith(beginning)), Fate.REFUSED)
