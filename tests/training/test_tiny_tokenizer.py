"""The tokenizer: whole words where the vocabulary has them, tolerance elsewhere."""

import numpy as np

from training.captions import caption
from training.pool import token_ids
from training.tasks import KINDS, make_task
from training.tokenizer import PROMPT_TOKENS, build_tokenizer, vocabulary_words


def test_each_word_of_the_vocabulary_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert {len(tokenizer(f" {word}")["input_ids"]) for word in vocabulary_words()} == {1}


def test_any_text_has_a_way_into_tokens_and_back() -> None:
    tokenizer = build_tokenizer()
    for text in (" Fjørd 3½ 日本 🎈", " a-b_c\t(x)", ""):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text.replace("½", "½")


def test_case_articles_and_punctuation_do_not_matter() -> None:
    ids = token_ids(build_tokenizer(), ["A RED circle, on White!", "red circle on the white"])
    assert (ids[0] == ids[1]).all()


def test_captions_fit_and_are_padded_to_one_length() -> None:
    rng = np.random.default_rng(0)
    prompts = [caption(make_task(kind, rng).request, rng, held_out=False) for kind in KINDS for _ in range(40)]
    ids = token_ids(build_tokenizer(), prompts)
    assert ids.shape == (len(prompts), PROMPT_TOKENS)
    assert (ids[:, -1] == 0).float().mean() > 0.99


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert build_tokenizer().get_vocab() == build_tokenizer().get_vocab()
