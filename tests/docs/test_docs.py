"""The docs tell the truth: every setting, endpoint, error code and make target is in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, make_settings
from umrgen_api.app import build_app
from umrgen_api.errors import HTTP_ERRORS
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.jobs import ErrorCode
from umrgen_core.profiles import ModelProfile

HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
CONFIG = (ROOT / "config.toml").read_text(encoding="utf-8")


def keys() -> list[tuple[str, str]]:
    sections = [(name, field.default) for name, field in Settings.model_fields.items() if name != "models"]
    plain = [(name, key) for name, section in sections for key in type(section).model_fields]
    return plain + [("models.tiny-klein", key) for key in ModelProfile.model_fields]


def part(text: str, heading: str) -> str:
    return text.split(heading, 1)[1].split("\n## ", 1)[0].split("\n[", 1)[0]


@pytest.mark.parametrize(("section", "key"), keys())
def test_every_setting_is_in_the_docs_and_in_config_toml_with_a_comment(section: str, key: str) -> None:
    assert f"| `{key}` |" in part(SETTINGS, f"## [{section}]")
    assert re.search(rf"^{key} = .*# \S", part(CONFIG, f"\n[{section}]"), re.MULTILINE)


def test_the_settings_page_gives_the_shipped_defaults() -> None:
    documented = re.findall(r"^\| `(\w+)` \| `(.*)` \|", SETTINGS, re.MULTILINE)
    explained = CONFIG.split("[models.flux2-klein-4b]")[0]  # every key of a model stands in the one before
    shipped = re.findall(r"^(\w+) = (.*?)\s*# ", explained, re.MULTILINE)
    assert documented == shipped


def test_every_endpoint_is_in_the_docs(tmp_path: Path) -> None:
    app = build_app(make_settings(tmp_path), SystemClock())
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    for method, path in routes - {(m, p) for m, p in routes if m == "HEAD"}:
        assert f"`{method} {path}`" in HTTP


@pytest.mark.parametrize("error", HTTP_ERRORS, ids=lambda error: error.code)
def test_every_error_is_in_the_docs(error: type) -> None:
    known = HTTP_ERRORS[error]
    assert f"| {known.status} | `{known.error}` | `{error.code}` |" in HTTP


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_job_error_code_is_in_the_docs(code: ErrorCode) -> None:
    assert f"| `{code}` |" in HTTP


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(targets[1].split())


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_pin_is_used_and_every_direct_dependency_is_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    direct = set(re.findall(r'^    "([a-z0-9-]+)",$', project, re.MULTILINE))
    direct |= set(
        re.findall(
            r'"([a-z0-9-]+)"', " ".join(re.findall(r"^(?:infer|safety|mcp|otel|dev) = \[.*\]$", project, re.MULTILINE))
        )
    )
    assert len(direct) > 20
    for name in direct:
        assert name in pins, f"{name} is not pinned"
        assert name in explained, f"{name} is not explained"
