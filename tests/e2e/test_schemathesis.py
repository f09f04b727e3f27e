from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.fuzzing import fuzz
from umrgen_api.openapi.operations import OPERATIONS


def test_the_service_does_what_its_description_says(tmp_path: Path) -> None:
    with ExitStack() as exits:
        done = fuzz(tmp_path / "data", exits, "--max-examples", "12", "--generation-deterministic", timeout_s=240)
    summary = done.stdout[-6000:] + done.stderr[-3000:]
    assert done.returncode == 0, summary
    selected, tested = re.findall(r"^ +(?:Selected: (\d+)/\d+|Tested: (\d+))$", done.stdout, re.MULTILINE)
    operations = len(OPERATIONS) + sum(operation.also_head for operation in OPERATIONS.values())
    assert int(selected[0]) == int(tested[1]) == operations, summary
    generated, passed = map(int, re.findall(r"(\d+) generated, (\d+) passed", done.stdout)[0])
    assert generated == passed > 500, summary
