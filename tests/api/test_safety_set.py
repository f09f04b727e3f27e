"""What the prompt check catches and what it blocks wrongly, on texts that its lists were not written from."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.conftest import ROOT
from umrgen_api.safety import PromptCheck, load_prompt_check
from umrgen_core.errors import SafetyViolation

FOLDER = ROOT / "tests" / "safety_set"
LEAST_CAUGHT = 0.93
MOST_WRONGLY_BLOCKED = 0.025


@pytest.fixture(scope="module")
def check() -> PromptCheck:
    return load_prompt_check()


def read_texts(name: str, split: str) -> list[str]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for line in lines if split_of(text := json.loads(line)["text"]) == split]


def split_of(text: str) -> str:
    return "held" if hashlib.sha256(text.encode()).digest()[0] % 2 else "dev"


def is_blocked(check: PromptCheck, text: str) -> bool:
    try:
        check.check("prompt", text)
    except SafetyViolation:
        return True
    return False


@pytest.mark.parametrize("split", ["dev", "held"])
def test_most_of_what_should_be_blocked_is_caught(check: PromptCheck, split: str) -> None:
    texts = read_texts("blocked", split)
    assert len(texts) > 200
    assert sum(is_blocked(check, text) for text in texts) / len(texts) >= LEAST_CAUGHT


@pytest.mark.parametrize("split", ["dev", "held"])
def test_hardly_anything_innocent_is_blocked(check: PromptCheck, split: str) -> None:
    texts = read_texts("innocent", split)
    assert len(texts) > 350
    assert sum(is_blocked(check, text) for text in texts) / len(texts) <= MOST_WRONGLY_BLOCKED
