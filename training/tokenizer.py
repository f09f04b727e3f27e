"""Builds the tokenizer: whole words of the vocabulary, byte pieces for all others."""

from collections.abc import Iterable
from itertools import chain

from transformers import Qwen2Tokenizer

from training import words

PROMPT_TOKENS = 24  # the model knows this length only: padding is visible to it
SPACE = "Ġ"  # how byte-level BPE writes a space
END = "<|endoftext|>"
# Letter groups that shorten words outside the vocabulary.
PIECES = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve"
    " co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur la el ta us di tr un ac ho lo ge ul"
    " am em oo ee ss ay ow ie ck gh ly ut po no pe id im ir ni ol os ot ad ab ag ig up"
)
# Plain words, lower case, articles dropped: what is left of a chat template for one message.
_DROPPED_MARKS = ",.;:!?()[]{}\"'-_/\n\t"
CHAT_TEMPLATE = (
    "{{ ' ' + (messages[0]['content'] | lower"
    + "".join(f" | replace({mark!r}, ' ')" if mark != "'" else ' | replace("\'", " ")' for mark in _DROPPED_MARKS)
    + " | replace('colour', 'color') | replace('grey', 'gray')"
    " | replace('centre', 'center')).split()"
    " | reject('in', ['a', 'an', 'the']) | join(' ') }}"
)


def vocabulary_words() -> list[str]:
    """Every word that captions use, lower case, sorted."""
    phrases: Iterable[str] = chain(
        *words.SHAPE_WORDS.values(),
        *words.PLURALS.values(),
        *words.COLOUR_WORDS.values(),
        *words.SIZE_WORDS.values(),
        *words.COUNT_WORDS.values(),
        words.ANY_SHAPE,
        *words.PLACE_WORDS.values(),
        *words.RELATION_WORDS.values(),
        *(form for pair in words.STYLE_WORDS.values() for form in pair),
        words.REFERENCE_WORDS,
        *words.ORDINALS,
        words.OPENINGS,
        words.CLOSINGS,
        words.NOISE_WORDS,
        (words.REST,),
    )
    listed = {word for phrase in phrases for word in phrase.replace("-", " ").split()}
    return sorted(word for word in listed if word.isalpha())


def _byte_characters() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(256 + rank) for rank, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def build_tokenizer() -> Qwen2Tokenizer:
    """A Qwen2 tokenizer whose merges spell each word from its start, letter by letter."""
    merges: dict[tuple[str, str], None] = {}
    for word in vocabulary_words():
        piece = SPACE
        for letter in word:
            merges.setdefault((piece, letter))
            piece += letter
    for pair in PIECES.split():
        merges.setdefault((pair[0], pair[1]))
    tokens = [END, *_byte_characters(), *dict.fromkeys(left + right for left, right in merges)]
    tokenizer = Qwen2Tokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=list(merges))
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = PROMPT_TOKENS
    return tokenizer
