"""What becomes of an upload in the sanitiser, in a few words to count by: the agent's reasons hold numbers."""

from __future__ import annotations

from enum import StrEnum


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
    """Too many waited already, no child starts, or somebody ended it at work: nothing is said of the picture."""
