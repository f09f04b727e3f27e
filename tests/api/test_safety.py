from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.conftest import Server
from umrgen_api.safety import PromptCheck, fold, load_prompt_check
from umrgen_core.errors import ConfigError, SafetyViolation


@pytest.fixture(scope="module")
def check() -> PromptCheck:
    """The lists that ship with UMRGEN."""
    return load_prompt_check()


BLOCKED = {
    "sexual": ["porn", "a HENTAI poster", "a sex scene in a film", "nsfw, woman", "an orgasm.", "porn\nstar"],
    "violence": ["the beheading of a king", "a school shooting", "decapitated"],
    "hate": ["heil hitler", "White Power march", "a kkk rally"],
    "minors": ["a nude child", "child, naked", "sexy schoolgirl", "lolicon", "a naked man and a little girl"],
}

INNOCENT = [
    "a view of Scunthorpe",
    "a cockpit of an airliner",
    "the coast of Essex and Sussex",
    "great tits in a garden",
    "a cocktail with a cherry",
    "a portrait of Dick Van Dyke",
    "the classic assassin in a grassy pass",
    "shiitake mushrooms",
    "an analyst at a desk",
    "a peacock and a cuckoo",
    "Penistone railway station",
    "a rooster, a bassoon and a titan",
    "a child playing in the snow",
    "a nude in the style of Rodin",
    "a naked mole rat with its baby",
    "a naked flame",
    "a portrait of Mother Teresa with children",
    "the Middlesex cricket team",
    "a bra of the Alps",
    "Highly detailed portrait of a female cyborg, cinematic lighting",
    "a sonata in a minor key",
    "grape harvest, drapes, therapist",
    "ein Kind im Park, 子供, ребёнок",
    "",
]


@pytest.mark.parametrize(("category", "prompt"), [(name, prompt) for name, some in BLOCKED.items() for prompt in some])
def test_blocked_keywords_are_found_and_their_category_named(check: PromptCheck, category: str, prompt: str) -> None:
    with pytest.raises(SafetyViolation) as refused:
        check.check("prompt", prompt)
    assert refused.value.extra == {"category": category, "field": "prompt"}


@pytest.mark.parametrize("prompt", INNOCENT)
def test_innocent_words_pass(check: PromptCheck, prompt: str) -> None:
    check.check("prompt", prompt)


DISGUISES = {
    "full width": "\uff50\uff4f\uff52\uff4e",
    "bold script": "\U0001d4f9\U0001d4f8\U0001d4fb\U0001d4f7",
    "circled": "\u24df\u24de\u24e1\u24dd",
    "an accent": "p\u00f3rn",
    "combining marks": "po\u0301\u0327rn",
    "zero width": "P\u200bO\u200dR\u2060N",
    "soft hyphen": "po\u00adrn",
    "variation selectors": "p\ufe0fo\ufe0frn",
    "another direction": "\u202eporn",
    "byte order mark": "\ufeffporn",
    "NUL": "po\x00rn",
    "signs around": "_*porn*_",
}


@pytest.mark.parametrize("prompt", DISGUISES.values(), ids=DISGUISES)
def test_a_disguise_of_characters_does_not_help(check: PromptCheck, prompt: str) -> None:
    with pytest.raises(SafetyViolation):
        check.check("prompt", prompt)


SPACES = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\u00a0",
    "\u2003",
    "\u3000",
    "-",
    "_",
    ".",
    ", ",
    "\u2028",
    "\x0b",
    "\x0c",
    "\x85",
]


@pytest.mark.parametrize("space", SPACES)
def test_anything_that_looks_like_a_space_separates_words(check: PromptCheck, space: str) -> None:
    with pytest.raises(SafetyViolation):
        check.check("prompt", f"a nude{space}child")


def test_folding_gives_plain_lower_case_words() -> None:
    assert fold("  \uff21\u0308  STRASSE,\t\uff46\uff4f\uff4f_bar!\n") == "a strasse foo bar"


async def test_the_answer_names_the_category_and_never_the_list(server: Server) -> None:
    for field, fields in (("prompt", {"prompt": "a porn poster"}), ("negative", {"negative": "porn"})):
        status, body, _ = await server.generate(**fields)
        assert (status, body["code"], body["category"], body["field"]) == (400, "safety_violation", "sexual", field)
        assert not any(word in str(body) for word in ("porn", "hentai", "nsfw"))


async def test_a_blocked_request_uses_nothing_up(server: Server) -> None:
    await server.generate(prompt="a porn poster")
    assert (await server.generate())[0] == 202


BAD_LISTS = {
    "not TOML": b"category =",
    "not UTF-8": b'category = "a"\nwords = ["\xff"]',
    "no category": b'words = ["a"]',
    "no words": b'category = "a"',
    "a number for a word": b'category = "a"\nwords = [5]',
    "words that are no list": b'category = "a"\nwords = "porn"',
    "a number for words": b'category = "a"\nwords = 5',
    "a word of nothing": b'category = "a"\nwords = [""]',
    "a word of signs only": b'category = "a"\nwords = ["!!!"]',
    "an unknown key": b'category = "a"\nwords = ["b"]\nword = ["c"]',
    "combinations of strings": b'category = "a"\nwords = ["b"]\ncombinations = ["c"]',
    "an empty combination": b'category = "a"\nwords = ["b"]\ncombinations = [[]]',
}


@pytest.mark.parametrize("content", BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_list_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_prompt_check(tmp_path)


def test_a_folder_without_lists_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_prompt_check(tmp_path)


def test_what_is_allowed_is_cut_out_before_the_rest_is_matched(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('category = "a"\nwords = ["rat"]\nallow = ["mole rat"]\n')
    check = load_prompt_check(tmp_path)
    check.check("prompt", "a Mole-Rat, a rattle")
    with pytest.raises(SafetyViolation):
        check.check("prompt", "a mole rat and a rat")
