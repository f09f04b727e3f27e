"""Prompt embeddings and reference latents, kept within a budget of bytes and used again. Pictures do not change."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

PROMPTS = "prompt"
REFERENCES = "reference"
ATTRIBUTE = "umrgen_caches"
DETERMINISTIC_ENCODERS = frozenset(
    {"Flux2KleinPipeline", "Flux2KleinKVPipeline", "QwenImageEditPlusPipeline", "FluxKontextPipeline"}
)
"""Pipelines whose `_encode_vae_image` takes the likeliest latents; others draw them from the job's seed."""
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types of so many bytes, in which tensors are compared bit by bit."""
LANES = 64


class PipelineCaches:
    """What a pipeline has encoded. Owned by the thread that paints; the counts may be read by any."""

    def __init__(self, most_bytes: int) -> None:
        self._kept = ByteBudget(most_bytes)
        self.salt: Hashable = ()
        """What else a prompt's embedding depends on: whoever changes the text encoder (a LoRA) sets it."""
        self.counts = {f"{kind}_{event}": 0 for kind in (PROMPTS, REFERENCES) for event in ("hits", "misses")}
        """Since the start."""
        self._taken = dict(self.counts)

    @property
    def kept_bytes(self) -> int:
        """Memory in use."""
        return self._kept.used_bytes

    def clear(self) -> None:
        """Let go of everything, where memory is short."""
        self._kept.clear()

    def take_counts(self) -> dict[str, int]:
        """Hits and misses since the last time: those of one painting, when taken after each."""
        taken, self._taken = self._taken, dict(self.counts)
        return {name: count - taken[name] for name, count in self._taken.items()}

    def remember(self, encode: Callable[..., Any], kind: str, unread: tuple[str, ...] = ()) -> Callable[..., Any]:
        """`encode`, answered from memory when it was called with the same content before.

        `unread` names arguments that do not change the answer. What cannot be compared is not kept.
        """
        signature = inspect.signature(encode)

        @functools.wraps(encode)
        def remembered(*given: Any, **named: Any) -> Any:
            bound = signature.bind(*given, **named)
            bound.apply_defaults()
            asked = {name: value for name, value in bound.arguments.items() if name not in unread}
            salt = self.salt if kind == PROMPTS else ()
            # Taken before the call: Z-Image rewrites the list of prompts that it is given.
            content = freeze([encode.__qualname__, asked], salt)
            return encode(*given, **named) if content is None else self._answer(content, kind, bound, encode)

        return remembered

    def _answer(self, content: Content, kind: str, bound: inspect.BoundArguments, encode: Callable[..., Any]) -> Any:
        found = self._kept.find(content)
        self.counts[f"{kind}_{'misses' if found is None else 'hits'}"] += 1
        if found is not None:
            return _copy(found)
        answer = encode(*bound.args, **bound.kwargs)
        self._kept.keep(content, answer)
        return answer


def install_caches(pipeline: Any, caches: PipelineCaches) -> None:
    """Put `caches` between a pipeline and its encoders. Pipelines over the same weights may share them."""
    _wrap(pipeline, "encode_prompt", lambda encode: caches.remember(encode, PROMPTS))
    _wrap(pipeline, "encode_image", lambda encode: caches.remember(encode, REFERENCES))
    if type(pipeline).__name__ in DETERMINISTIC_ENCODERS:
        _wrap(pipeline, "_encode_vae_image", lambda encode: caches.remember(encode, REFERENCES, ("generator",)))
    setattr(pipeline, ATTRIBUTE, caches)


def find_caches(pipeline: Any) -> PipelineCaches | None:
    """The caches of a pipeline, if it has any."""
    return getattr(pipeline, ATTRIBUTE, None)


def _wrap(pipeline: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    if hasattr(pipeline, name):
        setattr(pipeline, name, wrap(getattr(pipeline, name)))


class ByteBudget:
    """A mapping that forgets what was used least recently once it holds more than so many bytes of tensors."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[Content, tuple[Any, int]] = OrderedDict()
        self.used_bytes = 0

    def find(self, content: Content) -> Any:
        """What was kept for this content: to be copied, not changed. None where nothing was."""
        if content not in self._entries:
            return None
        self._entries.move_to_end(content)
        return self._entries[content][0]

    def keep(self, content: Content, value: Any) -> None:
        """Keep a copy of `value`, unless it is larger than the whole budget."""
        size_bytes = _count_bytes(value) + _count_bytes(content.tensors)
        if size_bytes > self._most_bytes:
            return
        while self.used_bytes + size_bytes > self._most_bytes:
            _, (_, freed_bytes) = self._entries.popitem(last=False)
            self.used_bytes -= freed_bytes
        own = Content(content.key, _copy(content.tensors))
        self._entries[own] = (_copy(value), size_bytes)
        self.used_bytes += size_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.used_bytes = 0


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What arguments say, comparable. Tensors are compared in full, where they are: nobody can forge a match."""

    key: Hashable
    tensors: tuple[torch.Tensor, ...]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Content) or self.key != other.key:
            return False
        return all(torch.equal(mine, theirs) for mine, theirs in zip(self.tensors, other.tensors, strict=True))


def freeze(value: Any, salt: Hashable = ()) -> Content | None:
    """The content of nested lists, dicts, texts, numbers, pictures and tensors; None where anything else is in them."""
    tensors: list[torch.Tensor] = []
    try:
        return Content((salt, _describe(value, tensors)), tuple(tensors))
    except TypeError:
        return None


def _describe(value: Any, tensors: list[torch.Tensor]) -> Hashable:
    if value is None or isinstance(value, bool | int | float | str | bytes | torch.device | torch.dtype):
        return type(value), value
    if isinstance(value, list | tuple):
        return (list, *(_describe(part, tensors) for part in value))
    if isinstance(value, dict):
        return (dict, *((name, _describe(part, tensors)) for name, part in value.items()))
    if isinstance(value, Image.Image):
        return Image.Image, value.mode, value.size, hashlib.sha256(value.tobytes()).digest()
    if isinstance(value, torch.Tensor) and value.element_size() in INTEGERS:
        bits = value.detach().contiguous().view(-1).view(INTEGERS[value.element_size()])
        tensors.append(bits)
        return torch.Tensor, value.dtype, value.device, value.shape, *_add_up(bits)
    raise TypeError(type(value))


def _add_up(bits: torch.Tensor) -> list[int]:
    """A sum for each lane, so that few tensors with the same sums are compared in full. One wait for the device."""
    lanes = bits[: bits.numel() // LANES * LANES].view(-1, LANES)
    sums: list[int] = lanes.sum(0, dtype=torch.int64).tolist()
    return sums


def _copy(answer: Any) -> Any:
    """The same with tensors and lists of its own, so that nobody can change what is kept."""
    if isinstance(answer, torch.Tensor):
        return answer.detach().clone()
    if isinstance(answer, list | tuple):
        return type(answer)(_copy(part) for part in answer)
    return answer


def _count_bytes(answer: Any) -> int:
    if isinstance(answer, torch.Tensor):
        return answer.numel() * answer.element_size()
    if isinstance(answer, list | tuple):
        return sum(_count_bytes(part) for part in answer)
    return 0
