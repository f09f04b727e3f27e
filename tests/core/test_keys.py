from __future__ import annotations

import hashlib
import re

import pytest

from umrgen_core.keys import digest_key, is_well_formed, mint_key


def test_a_minted_key_has_the_documented_form() -> None:
    assert re.fullmatch(r"umr_[0-9A-Za-z]{49}", mint_key())
    assert is_well_formed(mint_key())


def test_keys_do_not_repeat() -> None:
    assert len({mint_key() for _ in range(1000)}) == 1000


def test_the_secret_carries_256_random_bits() -> None:
    secrets = [mint_key()[4:47] for _ in range(400)]
    assert all(len({secret[place] for secret in secrets}) > 50 for place in range(43))


def test_one_wrong_character_anywhere_is_seen_without_a_look_up() -> None:
    key = mint_key()
    for place, letter in enumerate(key):
        wrong = "A" if letter != "A" else "B"
        assert not is_well_formed(key[:place] + wrong + key[place + 1 :]), place


def test_two_characters_that_changed_places_are_seen() -> None:
    key = mint_key()
    place = next(i for i in range(4, len(key) - 1) if key[i] != key[i + 1])
    assert not is_well_formed(key[:place] + key[place + 1] + key[place] + key[place + 2 :])


@pytest.mark.parametrize(
    "key", ["", "umr_", "z-img-secret-key-2026", "umr_" + "0" * 50, "umr_" + "é" * 49, "\x00" * 53]
)
def test_what_was_never_minted_is_not_well_formed(key: str) -> None:
    assert not is_well_formed(key)


@pytest.mark.parametrize("change", ["{} ", " {}", "{}\n", "{}0", "umr_{}"])
def test_nothing_is_trimmed_from_a_key(change: str) -> None:
    assert not is_well_formed(change.format(mint_key()))


def test_the_store_holds_the_sha256_of_the_whole_key() -> None:
    key = mint_key()
    assert digest_key(key) == hashlib.sha256(key.encode()).hexdigest()


def test_a_key_that_is_no_utf_8_has_a_digest_too() -> None:
    assert digest_key("umr_\udcff") == hashlib.sha256(b"umr_\xff").hexdigest()
