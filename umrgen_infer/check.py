"""`umrgen-infer check --profile NAME`: load a profile, paint with it, and say what it takes and what it ignores."""

from __future__ import annotations

import argparse
import functools
import itertools
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import CANNOT_START, ConfigError, UmrgenError
from umrgen_core.loras import LoraShelf
from umrgen_core.profiles import MIN_SIDE_PX, ModelProfile, RenderSize
from umrgen_infer.painter import Commission, DeviceLost, OutOfMemory, Painting
from umrgen_infer.pipelines.diffusers_painter import DiffusersPainter
from umrgen_infer.pipelines.load import load_painter
from umrgen_infer.pipelines.warm_up import build_trial, list_counts, list_sizes, paint_trial

RED, BLUE = (255, 0, 0), (0, 0, 255)
STAGES = ("encode", "denoise", "decode")
HOST_MEMORY = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class Check:
    """One profile under test. Painted at its own sizes and steps, after the warm-up that comes with loading."""

    def __init__(self, settings: Settings, name: str, console: Console) -> None:
        self._settings = settings
        self._name = name
        self._profile = _find_profile(settings, name)
        self._console = console
        self._numbers = itertools.count()
        self._peak_bytes = 0

    def run(self) -> None:
        """Print everything. Raises ConfigError with a sentence for what is not as the profile says."""
        self._print_profile()
        began = time.perf_counter()
        find_lora = functools.partial(LoraShelf(self._settings.infer.loras).find_file, self._name)
        painter = load_painter(self._name, self._profile, self._settings.infer.threads, find_lora)
        self._console.print(f"loaded and warmed up on {painter.device} in {time.perf_counter() - began:.1f} s")
        try:
            self._print_times(painter)
            self._print_batches(painter)
            self._print_memory(painter)
            self._print_ignored()
            self._require_effect(painter)
        finally:
            painter.close()
        self._console.print(f'{self._name} can be served: [infer] models = ["{self._name}"]')

    def _print_profile(self) -> None:
        profile = self._profile
        table = Table.grid(padding=(0, 2))
        rows = {
            "profile": self._name,
            "pipeline": profile.pipeline,
            "weights": f"{profile.path} {profile.revision}",
            "licence": profile.licence or "not stated",
            "sizes": _describe_sizes(profile),
            "steps": f"{profile.min_steps} to {profile.max_steps}, {profile.steps} unless asked otherwise",
            "references": _describe_references(profile),
            "LoRAs": f"up to {profile.loras}" if profile.loras else "none",
        }
        for key, value in rows.items():
            table.add_row(key, value)
        self._console.print(table)

    def _print_times(self, painter: DiffusersPainter) -> None:
        table = Table(box=None, padding=(0, 2), title=f"seconds, at {self._profile.steps} steps")
        for heading in ("size", "references", *STAGES, "all"):
            table.add_column(heading, justify="right")
        painting = None
        for size, count in self._list_paintings():
            began = time.perf_counter()
            painting = self._paint(painter, size, count)
            took = time.perf_counter() - began
            stages = (f"{painting.timings[stage]:.3f}" for stage in STAGES)
            table.add_row(f"{size.width}x{size.height}", str(count), *stages, f"{took:.3f}")
            self._peak_bytes = max(painting.peak_bytes, self._peak_bytes)
        self._console.print(table)
        self._console.print(f"ran with: {dict(painting.ran_with) if painting else {}}")

    def _list_paintings(self) -> Iterator[tuple[RenderSize, int]]:
        profile = self._profile
        sizes = list(list_sizes(profile)) or [profile.render_size(MIN_SIDE_PX, MIN_SIDE_PX)]
        return itertools.product(sizes, sorted({*list_counts(profile), profile.references}))

    def _paint(self, painter: DiffusersPainter, size: RenderSize, references: int) -> Painting:
        # Another prompt and another colour each time: nothing is answered from a cache.
        number = next(self._numbers)
        trial = build_trial(
            self._profile,
            size,
            references,
            prompt=f"picture {number}",
            colour=(number % 256, 0, 0),
            steps=self._profile.steps,
        )
        return paint_trial(self._name, painter, trial)

    def _print_memory(self, painter: DiffusersPainter) -> None:
        host = HOST_MEMORY.search(Path("/proc/self/status").read_text(encoding="ascii"))
        if host:
            self._console.print(f"memory of the computer, at most: {int(host[1]) * 1024 / 1e9:.2f} GB")
        memory = painter.read_memory()
        if memory is None:
            self._console.print("memory of a GPU: none is used")
            return
        self._console.print(
            f"memory of the GPU: {painter.weight_bytes / 1e9:.2f} GB of weights (memory_bytes), at most "
            f"{self._peak_bytes / 1e9:.2f} GB while painting, of {memory.total_bytes / 1e9:.2f} GB"
        )

    def _print_batches(self, painter: DiffusersPainter) -> None:
        if self._profile.batch == 1:
            return
        for trial in painter.batches:
            size = f"{trial.size.width}x{trial.size.height}"
            faster = f"up to {trial.most}, which is {trial.gain:.2f} times as fast" if trial.most > 1 else "none"
            self._console.print(f"painted together, up to {size}: {faster}")
        if not painter.batches:
            self._console.print("painted together: none, for want of a small size without references")

    def _print_ignored(self) -> None:
        profile = self._profile
        takes = {"negative_prompt": profile.negative, "reference_images": profile.references, "loras": profile.loras}
        ignored = [field for field, taken in takes.items() if not taken]
        self._console.print(f"ignored or refused in requests: {', '.join(ignored) or 'nothing'}")

    def _require_effect(self, painter: DiffusersPainter) -> None:
        """What the profile says that the model reads must change the picture."""
        profile, size = self._profile, self._profile.render_size(MIN_SIDE_PX, MIN_SIDE_PX)
        if profile.references:
            count = max(profile.min_references, 1)
            trials = [build_trial(profile, size, count, colour=colour) for colour in (RED, BLUE)]
            if self._paints_the_same(painter, *trials):
                raise ConfigError(f"[models.{self._name}] references: red and blue ones paint the same picture")
        if profile.negative:
            count = profile.min_references
            trials = [build_trial(profile, size, count, negative=words) for words in ("ugly", "blue, wet")]
            if self._paints_the_same(painter, *trials):
                raise ConfigError(f"[models.{self._name}] negative: a negative prompt changes nothing; set it to false")

    def _paints_the_same(self, painter: DiffusersPainter, *trials: Commission) -> bool:
        one, other = (paint_trial(self._name, painter, trial).image for trial in trials)
        return one.tobytes() == other.tobytes()


def _find_profile(settings: Settings, name: str) -> ModelProfile:
    if name not in settings.models:
        known = ", ".join(sorted(settings.models)) or "none"
        raise ConfigError(f"--profile: no [models.{name}] is described; there are: {known}")
    return settings.models[name]


def _describe_sizes(profile: ModelProfile) -> str:
    if profile.native_px is not None:
        return f"painted at {profile.native_px}x{profile.native_px}, brought to the size asked for"
    return f"painted in multiples of {profile.multiple_px} px, up to {profile.max_area_px} px in all"


def _describe_references(profile: ModelProfile) -> str:
    if not profile.references:
        return "none"
    area = f", scaled down to {profile.reference_area_px} px" if profile.reference_area_px else ""
    return f"{profile.min_references} to {profile.references}, as {profile.references_as}{area}"


def main() -> int:
    """Entry of the process that `umrgen-infer check` becomes."""
    parser = argparse.ArgumentParser(prog="umrgen-infer check")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    options = parser.parse_args()
    try:
        console = Console(highlight=False, markup=False, soft_wrap=True)  # a licence may hold [brackets]
        Check(load_settings(options.config), options.profile, console).run()
    except OutOfMemory:
        return _say(
            f"[models.{options.profile}]: the device's memory does not suffice; set offload or storage_dtype, "
            "or smaller sizes in warm_up"
        )
    except DeviceLost as lost:
        return _say(f"[models.{options.profile}]: the device failed: {lost}")
    except (UmrgenError, OSError) as error:
        return _say(str(error))
    return 0


def _say(sentence: str) -> int:
    sys.stderr.write(f"umrgen-infer: {sentence}\n")
    return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
