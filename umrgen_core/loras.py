"""The owner's LoRAs: `FOLDER/MODEL/NAME.safetensors`. Agents name them; nothing but a listed file is ever opened."""

from __future__ import annotations

import re
from pathlib import Path

SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class LoraShelf:
    """What lies in the folder now: an owner adds and removes files while the service runs."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None

    def list_names(self, model: str) -> list[str]:
        """Names of the LoRAs for `model`, sorted. Files whose names are none are left out."""
        if self._folder is None:
            return []
        files = (self._folder / model).glob("*" + SUFFIX)
        return sorted(file.stem for file in files if _NAME.fullmatch(file.stem) and file.is_file())

    def find_file(self, model: str, name: str) -> Path | None:
        """The file of a LoRA, or None."""
        if self._folder is None or not _NAME.fullmatch(name):
            return None
        file = self._folder / model / (name + SUFFIX)
        return file if file.is_file() else None
