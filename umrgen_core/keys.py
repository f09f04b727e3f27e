"""API keys: `umr_`, 256 random bits in base62, and a checksum so that typos need no look-up.

256 random bits need no slow hash: the store holds their SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

PREFIX = "umr_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS = 43  # 62**43 > 2**256
_CHECK_CHARS = 6  # 62**6 > 2**32
_FORM = re.compile(rf"{PREFIX}(?P<secret>[0-9A-Za-z]{{{_SECRET_CHARS}}})(?P<check>[0-9A-Za-z]{{{_CHECK_CHARS}}})")


def mint_key() -> str:
    """A new key."""
    secret = _base62(secrets.randbits(256), _SECRET_CHARS)
    return PREFIX + secret + _checksum(secret)


def is_well_formed(key: str) -> bool:
    """Whether `key` has the form and checksum of a minted one."""
    parts = _FORM.fullmatch(key)
    return parts is not None and _checksum(parts["secret"]) == parts["check"]


def digest_key(key: str) -> str:
    """What the store holds: SHA-256 of the key, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode("ascii")), _CHECK_CHARS)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
