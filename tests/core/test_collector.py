"""The collector goes through what came after the start, and through that alone."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from umrgen_core.collector import set_start_aside

class Model:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("freed")

set_start_aside()
aside = gc.get_freeze_count()
assert aside > 1000, aside
model = Model()
set_start_aside()
assert gc.get_freeze_count() <= aside
del model
gc.collect()
print("end")
"""


def test_what_comes_after_the_start_is_still_freed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["freed", "end"]
