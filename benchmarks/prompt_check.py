"""What the prompt check catches, what it blocks wrongly, and what it costs. `python -m benchmarks.prompt_check`.

The limit that its time is compared with is Unicode normalisation and case folding of the same text,
which any check must do.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from umrgen_api.safety import PromptCheck, load_prompt_check
from umrgen_core.errors import SafetyViolation

TEXTS = Path(__file__).parents[1] / "tests" / "safety_set"
ROUNDS = 5


def main() -> None:
    """Print the shares and the times."""
    began = time.perf_counter()
    check = load_prompt_check()
    print(f"lists read in {(time.perf_counter() - began) * 1e3:.0f} ms")
    for name in ("blocked", "innocent"):
        for split in ("dev", "held"):
            texts = _read(name, split)
            blocked = sum(_is_blocked(check, text) for text in texts)
            print(f"{name:8} {split:4} {blocked:4} of {len(texts)} blocked ({blocked / len(texts):.1%})")
    innocents = _read("innocent", "dev") + _read("innocent", "held")
    long = ((" ".join(innocents)) * 2)[:2000]
    for label, texts in (("a prompt of the set", innocents), ("2,000 characters", [long] * 20)):
        taken = [_time_each(lambda text: _is_blocked(check, text), texts) for _ in range(ROUNDS)]
        limit = [_time_each(_fold, texts) for _ in range(ROUNDS)]
        ratio = statistics.median(taken) / statistics.median(limit)
        print(f"{label}: {statistics.median(taken):.0f} us (p50 of {ROUNDS}), {ratio:.0f} times the folding alone")


def _read(name: str, split: str) -> list[str]:
    lines = (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    return [text for text in texts if (hashlib.sha256(text.encode()).digest()[0] % 2 == 1) == (split == "held")]


def _is_blocked(check: PromptCheck, text: str) -> bool:
    try:
        check.check("prompt", text)
    except SafetyViolation:
        return True
    return False


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKD", text).casefold()


def _time_each(do: Callable[[str], object], texts: list[str]) -> float:
    """Microseconds of processor time a text."""
    began = time.process_time()
    for text in texts:
        do(text)
    return (time.process_time() - began) / len(texts) * 1e6


if __name__ == "__main__":
    main()
