"""The console for everybody: by keyboard alone, by screen reader, in dark and light, on a narrow screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import picture_bytes
from tests.console.conftest import Service, Visitor
from umrgen_core.agents import Scope

Visit = Callable[..., Visitor]
LEAST_CONTRAST = 4.5
NAMELESS = """() => {
  const named = (e) => e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()
    || e.querySelector("img[alt]:not([alt=''])");
  const inputs = "input:not([type=hidden]):not([hidden]), select, textarea";
  const controls = document.querySelectorAll(`a, button, summary, ${inputs}`);
  const images = document.querySelectorAll("img:not([alt])");
  return [...[...controls].filter((e) => !named(e)), ...images].map((e) => e.outerHTML);
}"""
OUTLINE = """() => [...document.querySelectorAll("h1, h2, h3, h4")].map((heading) => Number(heading.tagName[1]))"""
PALE = """(least) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!(own || element.placeholder) || !element.checkVisibility() || element.disabled) continue;
    const style = getComputedStyle(element, !own && !element.value ? "::placeholder" : null);
    const [one, other] = [light(parse(style.color)), light(ground(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < least) found.push(`${contrast.toFixed(2)} ${element.outerHTML.slice(0, 120)}`);
  }
  return found;
}"""
WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    """A key for every page, of an agent that has a picture, a failure to come and a reference."""
    key = service.mint("everybody", *Scope).key
    service.http.headers["Authorization"] = f"Bearer {key}"
    reference = service.upload(picture_bytes())["filename"]
    service.wait_status(service.generate(width=64, height=64, reference_images=[reference]))
    return key


def walk(page: Page, url: str) -> Iterator[str]:
    """Every page there is, one after the other."""
    for path in ("/console", "/console/gallery", "/console/queue", "/console/admin", "/console/admin/agents"):
        page.goto(url + path)
        yield path
    page.goto(f"{url}/console/gallery")
    page.locator(".thumb").first.click()
    yield "/console/jobs"
    page.goto(f"{url}/console/jobs/none")
    yield "an error"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_every_picture_a_text_and_every_text_is_readable(
    service: Service, visit: Visit, key: str, scheme: str
) -> None:
    visitor = visit(color_scheme=scheme)
    page = visitor.open("/console")
    assert page.evaluate(PALE, LEAST_CONTRAST) == []
    visitor.sign_in(key)
    for path in walk(page, service.url):
        page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        assert page.evaluate(NAMELESS) == [], path
        assert page.evaluate(PALE, LEAST_CONTRAST) == [], path
        outline = page.evaluate(OUTLINE)
        assert outline[0] == 1
        assert outline.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(outline)), path
        assert page.title().endswith(" · UMRGEN")


def test_no_page_is_wider_than_a_telephone(service: Service, visit: Visit, key: str) -> None:
    visitor = visit(viewport={"width": 320, "height": 640})
    page = visitor.open("/console")
    assert not page.evaluate(WIDE)
    visitor.sign_in(key)
    for path in walk(page, service.url):
        assert not page.evaluate(WIDE), path


def test_a_picture_is_made_by_keyboard_alone_and_the_focus_is_always_seen(
    service: Service, visit: Visit, key: str
) -> None:
    page = visit(reduced_motion="reduce").open("/console")
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.type("a yellow triangle")
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        seen.append(focused.get_attribute("id"))
        outlined = "e => getComputedStyle(e.id === 'files' ? document.getElementById('drop') : e).outlineStyle"
        assert focused.evaluate(outlined) != "none", seen
        if seen[-1] == "width":
            page.keyboard.type("64")
        if seen[-1] == "height":
            page.keyboard.type("64")
        if seen[-1] == "submit":
            break
    order = [one for one in seen if one in ("files", "model", "preset", "width", "height", "steps", "seed", "submit")]
    assert order == ["files", "model", "preset", "width", "height", "steps", "seed", "submit"]
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-stage] article[data-state=completed]", timeout=100_000)
    expect(page.locator("#announce")).to_have_text("Your picture is ready.")


def test_the_first_stop_leads_past_the_navigation(service: Service, visit: Visit, key: str) -> None:
    page = visit().sign_in(key, "/console/gallery")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
