"""Prompts are words of strangers: what a tokenizer would take for a mark of its own is broken up."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def build_disarm(pipeline: Any) -> Callable[[str], str]:
    """A function that puts a space into each control token in a prompt.

    Such a token would end the user's turn of a chat template, or stand for a picture that is not there.
    """
    tokens: set[str] = set()
    for name in TOKENIZERS:
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None:
            tokens |= {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    # Only what looks like a mark: CLIP pads with "!", which is a word like any other.
    marks = sorted((token for token in tokens if re.fullmatch(r"<.+>", token)), key=len, reverse=True)
    if not marks:
        return str
    pattern = re.compile("|".join(re.escape(mark) for mark in marks))
    return lambda prompt: pattern.sub(lambda found: f"< {found[0][1:]}", prompt)
