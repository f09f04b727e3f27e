"""`make screenshots`: the console's pictures in docs/, of real pictures made by both real daemons."""

from __future__ import annotations

import io
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import ROOT
from tests.console.conftest import ARGUMENTS, CHROMIUM, ENVIRONMENT, Service, Visitor, give_files
from umrgen_core.agents import Scope

VIEW = {"width": 1180, "height": 800}
MADE_MS = 100_000
PROMPTS = [
    f"a {colour} {thing} on a {ground} background"
    for colour, thing, ground in (
        ("red", "circle", "white"), ("blue", "square", "yellow"), ("green", "triangle", "black"),
        ("yellow", "star", "blue"), ("purple", "circle", "green"), ("brown", "square", "white"),
        ("white", "triangle", "red"), ("black", "star", "yellow"),
    )
]  # fmt: skip


def main() -> None:
    """Start the service, make pictures, take the screenshots."""
    if CHROMIUM is None:
        raise SystemExit("there is no chromium: apt-get install --no-install-recommends chromium")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        service = Service(Path(folder) / "data", exits, **ENVIRONMENT)
        service.start_infer()
        service.start_api()
        service.wait_ready()
        key = service.mint("owner", *Scope).key
        service.http.headers["Authorization"] = f"Bearer {key}"
        for seed, prompt in enumerate(PROMPTS):
            service.wait_status(service.generate(prompt=prompt, width=256, height=256, seed=seed))
        with sync_playwright() as playwright:
            take(service, key, playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS))


def take(service: Service, key: str, browser: Browser) -> None:
    """The form with a picture in light, the gallery in dark, the owner's page in light."""
    visitor = Visitor(service, browser.new_context(viewport=VIEW, locale="en-GB", timezone_id="UTC"))
    page = visitor.sign_in(key)
    output = next((service.data_dir / "files" / "outputs").iterdir())
    give_files(page, "drop", output)
    page.wait_for_selector("#chosen li[data-name^=image_]")
    page.get_by_label("Prompt", exact=True).fill(PROMPTS[0])
    page.get_by_label("Size").select_option("512x512")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_role("button", name="Create").click()
    page.wait_for_selector("[data-stage] article[data-state=completed]", timeout=MADE_MS)
    save(page, "create")
    page.goto(f"{service.url}/console/admin")
    save(page, "service")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({**VIEW, "height": 570})
    page.goto(f"{service.url}/console/gallery")
    page.wait_for_load_state("networkidle")
    save(page, "gallery")


def save(page: Page, name: str) -> None:
    """The window as it is, its focus ring left out."""
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path = ROOT / "docs" / f"console-{name}.png"
    picture.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
