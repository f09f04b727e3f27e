"""What the cookie of a signed-in browser holds: never the key, only which key it was, signed.

A token names the number of a key, when it was given out and until when it counts. Its signature is taken over the
digest of the key as well, so that a token counts for that very key and for no other that comes to have its number.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_LABEL = b"umrgen console session"
_TOKEN = re.compile(r"(\d{1,18})\.(\d{1,12})\.(\d{1,12})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")
_NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Token:
    """One sign-in. Times are wall seconds; `nonce` tells it from every other."""

    key_id: int
    issued_at_s: int
    expires_at_s: int
    nonce: str

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.key_id}.{self.issued_at_s}.{self.expires_at_s}.{self.nonce}"


class Signer:
    """Signs and reads tokens under a secret of its own, derived from the service's master secret."""

    def __init__(self, master: bytes) -> None:
        self._secret = hmac.digest(master, _LABEL, hashlib.sha256)

    def issue(self, key_id: int, key_sha256: str, now_s: int, session_s: int) -> tuple[Token, str]:
        """A new token for a key, and the text of the cookie."""
        nonce = _encode(secrets.token_bytes(_NONCE_BYTES))
        token = Token(key_id, now_s, now_s + session_s, nonce)
        return token, f"{token.text}.{self._sign('token', token, key_sha256)}"

    def is_signed(self, token: Token, signature: str, key_sha256: str) -> bool:
        """Whether the signature is ours, for this key."""
        return hmac.compare_digest(signature.encode(), self._sign("token", token, key_sha256).encode())

    def form_token(self, token: Token, key_sha256: str) -> str:
        """What every form and every fetch of this sign-in must bring along, which no other site can know."""
        return self._sign("form", token, key_sha256)

    def _sign(self, purpose: str, token: Token, key_sha256: str) -> str:
        message = f"{purpose} {token.text} {key_sha256}".encode()
        return _encode(hmac.digest(self._secret, message, hashlib.sha256))


def parse_token(text: str) -> tuple[Token, str] | None:
    """A cookie's token and its signature, which has yet to be checked; None for what has not this form."""
    match = _TOKEN.fullmatch(text)
    if match is None or not text.isascii():
        return None
    return Token(int(match[1]), int(match[2]), int(match[3]), match[4]), match[5]


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
