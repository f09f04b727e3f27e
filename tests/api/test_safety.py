from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.api.conftest import Server
from tests.conftest import ROOT
from umrgen_api.readings import read_text
from umrgen_api.safety import SHIPPED_LISTS, PromptCheck, load_prompt_check
from umrgen_core.accounts import Accounts
from umrgen_core.agents import SHIPPED_CATEGORIES
from umrgen_core.errors import AccountError, ConfigError, SafetyViolation


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


async def test_the_answer_names_the_category_and_never_the_list(server: Server) -> None:
    for field, fields in (("prompt", {"prompt": "a porn poster"}), ("negative", {"negative": "porn"})):
        status, body, _ = await server.generate(**fields)
        assert (status, body["code"], body["category"], body["field"]) == (400, "safety_violation", "sexual", field)
        assert not any(word in str(body) for word in ("porn", "hentai", "nsfw"))


async def test_a_blocked_request_uses_nothing_up(server: Server) -> None:
    await server.generate(prompt="a porn poster")
    assert (await server.generate())[0] == 202


BAD_LISTS = {
    "not TOML": b"words =",
    "not UTF-8": b'[words]\nen = ["\xff"]',
    "no words": b'[allow]\nen = ["a"]',
    "a number for a word": b"[words]\nen = [5]",
    "words without a language": b'words = ["a"]',
    "words that are no list": b'[words]\nen = "a"',
    "an empty language": b"[words]\nen = []",
    "a word of nothing": b'[words]\nen = [""]',
    "a word of signs only": b'[words]\nen = ["!!!"]',
    "a star after two letters": b'[words]\nen = ["ab*"]',
    "an unknown key": b'[words]\nen = ["b"]\n[word]\nen = ["c"]',
    "a combination of one group": b'[combinations.a.one]\nen = ["b"]',
    "a list that is not there": b'[words]\nen = ["@nothing"]',
    "a list that names itself": b'[words]\nen = ["@bad"]',
}


def write_list(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("content", BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_list_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="bad"):
        load_prompt_check(tmp_path)


def test_a_folder_without_lists_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_prompt_check(tmp_path)


def test_what_is_allowed_is_cut_out_before_the_rest_is_matched(tmp_path: Path) -> None:
    check = load_prompt_check(write_list(tmp_path, "a", '[words]\nen = ["rat"]\n[allow]\nen = ["mole rat"]\n'))
    check.check("prompt", "a Mole-Rat, a rattle")
    with pytest.raises(SafetyViolation):
        check.check("prompt", "a mole rat and a rat")


def test_the_categories_that_ship_are_the_ones_that_an_owner_is_told_of() -> None:
    assert sorted(load_prompt_check().categories) == sorted(SHIPPED_CATEGORIES)


def test_an_owners_list_stands_beside_the_shipped_ones(tmp_path: Path) -> None:
    check = load_prompt_check(write_list(tmp_path, "brands", '[words]\nen = ["acme"]\n'))
    assert check.categories == ["minors", "brands", "hate", "sexual", "violence"]
    for prompt, category in (("an ACME anvil", "brands"), ("porn", "sexual")):
        with pytest.raises(SafetyViolation) as refused:
            check.check("prompt", prompt)
        assert refused.value.extra["category"] == category


def test_an_owners_list_replaces_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    check = load_prompt_check(write_list(tmp_path, "violence", '[words]\nen = ["zombie"]\n'))
    check.check("prompt", "a beheading")
    with pytest.raises(SafetyViolation):
        check.check("prompt", "a zombie")


def test_nothing_that_an_owner_writes_takes_from_what_protects_minors(tmp_path: Path) -> None:
    write_list(tmp_path, "sexual", '[words]\nen = ["acme"]\n')
    check = load_prompt_check(
        write_list(tmp_path, "minors", '[words]\nen = ["zombie"]\n[allow]\nen = ["a kid goat"]\n')
    )
    check.check("prompt", "porn")
    check.check("prompt", "a naked kid goat")
    for prompt in ("a nude child", "porn with a child", "a zombie", "lolicon", "an acme schoolgirl"):
        with pytest.raises(SafetyViolation) as refused:
            check.check("prompt", prompt)
        assert refused.value.extra["category"] == "minors"


def test_a_category_can_be_off_but_never_the_one_for_minors(check: PromptCheck) -> None:
    off = frozenset(SHIPPED_CATEGORIES)
    for prompt in ("porn", "a beheading", "heil hitler"):
        check.check("prompt", prompt, off)
        with pytest.raises(SafetyViolation):
            check.check("prompt", prompt, off - {"sexual", "violence", "hate"})
    for prompt in ("child porn", "porn, a little girl", "a nude child"):
        with pytest.raises(SafetyViolation) as refused:
            check.check("prompt", prompt, off)
        assert refused.value.extra["category"] == "minors"


async def test_an_agents_own_categories_hold_for_its_requests_at_once(server: Server) -> None:
    services = server.services
    accounts = Accounts(services.database)
    assert (await server.generate(prompt="a beheading", negative="hentai"))[1]["category"] == "violence"
    await accounts.set_safety_off("development", ["violence"])
    assert (await server.generate(prompt="a beheading", negative="hentai"))[1]["category"] == "sexual"
    await accounts.set_safety_off("development", ["violence", "sexual"])
    assert (await server.generate(prompt="a nude child"))[1]["category"] == "minors"
    assert (await server.generate(prompt="a beheading", negative="hentai"))[0] == 202


async def test_the_store_refuses_to_switch_off_what_protects_minors(server: Server) -> None:
    with pytest.raises(AccountError, match="minors"):
        await Accounts(server.services.database).set_safety_off("development", ["minors"])


async def test_an_owners_folder_is_read_at_start(start_server, tmp_path: Path) -> None:
    folder = write_list(tmp_path / "lists", "brands", '[words]\nen = ["acme"]\n')
    server = await start_server(safety={"lists": str(folder)})
    assert (await server.generate(prompt="an acme anvil"))[1]["category"] == "brands"


def test_the_list_in_the_docs_works_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "safety.md").read_text(encoding="utf-8"), re.DOTALL)
    check = load_prompt_check(write_list(tmp_path, "brands", example))
    check.check("prompt", "the acme of perfection, a globex")
    for prompt in ("an Acme anvils set", "a globex logo", "globex, 2 logos"):
        with pytest.raises(SafetyViolation) as refused:
            check.check("prompt", prompt)
        assert refused.value.extra["category"] == "brands"


@pytest.mark.parametrize(
    "language", ["en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "tr", "ja", "zh", "ar", "hi"]
)
def test_every_category_has_a_list_in_every_language(language: str) -> None:
    for path in SHIPPED_LISTS.glob("*.toml"):
        assert tomllib.loads(path.read_text(encoding="utf-8"))["words"].get(language), path.name


FAR = [
    "q " * 40 + "n a k e d c h i l d",
    "q " * 40 + "c h i l d naked",
    "q " * 40 + "p o r n",
    "a b c d " * 200 + "p.o.r.n",
]


@pytest.mark.parametrize("prompt", FAR)
def test_letters_before_a_spelled_word_do_not_hide_it(check: PromptCheck, prompt: str) -> None:
    with pytest.raises(SafetyViolation):
        check.check("prompt", prompt)


MOST_LETTERS_READ = 16
"""For each letter of a prompt: scripts, signs and repeats make several forms, and no combination multiplies them."""

NASTY = {
    "letters in brackets": ("\u24ae\u24a0\u24b3" * 13 + "\ufb00") * 50,
    "ligatures": "\ufdfa" * 2000,
    "spelled words": "s e x s e x " * 160,
    "single letters": "a " * 1000,
    "masks": "p*rn* " * 333,
    "drawn out": "pooooooorn" * 200,
    "marks": "a\u0301" * 1000,
    "look-alikes": "\u0440\u043e\u0433\u043f " * 400,
    "signs": "$3x! " * 400,
    "camel": "aB" * 1000,
    "CJK": "\u8272" * 2000,
    "begun phrases": "white power sex death to " * 80,
    "spelled": "p o r k " * 250,
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_the_work_of_the_check_grows_with_the_prompt_and_no_faster(text: str) -> None:
    read = read_text(text[:2000])
    letters = sum(len(form) for reading in read.readings for forms in reading for form in forms)
    assert letters + sum(map(len, read.rows)) + len(read.unspaced) <= MOST_LETTERS_READ * 2000
