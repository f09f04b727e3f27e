"""From a key to a picture in a real browser, and what goes wrong on the way."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.conftest import picture_bytes
from tests.console.conftest import Service, Visitor, give_files
from umrgen_core.agents import Scope

Visit = Callable[..., Visitor]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
BROKEN_OFF = 'id: 1\nevent: state\ndata: {"state":"queued","queue_position":1}\n\nid: 2\nevent: sta'
PAINTED_MS = 100_000
REFRESHED_MS = 4100
PASTE_TEXT = """(prompt) => {
  const data = new DataTransfer();
  data.setData("text/plain", "a word");
  data.items.add(new File([new Uint8Array([1])], "word.png", {type: "image/png"}));
  prompt.dispatchEvent(new ClipboardEvent("paste", {bubbles: true, cancelable: true, clipboardData: data}));
}"""
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const line = document.querySelector(".progress-text")?.textContent;
    if (line && window.seen.at(-1) !== line) window.seen.push(line);
  }).observe(document.querySelector("[data-stage]"), {subtree: true, childList: true, characterData: true});
}"""
PIXEL = """(image) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  canvas.getContext("2d").drawImage(image, -40, -50);
  const colour = canvas.getContext("2d").getImageData(0, 0, 1, 1).data.slice(0, 3);
  return [image.naturalWidth, image.naturalHeight, ...colour];
}"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "reference.png"
    path.write_bytes(picture_bytes())
    return path


def wait_for(page: Page, state: str) -> None:
    page.wait_for_selector(f"[data-stage] article[data-state={state}]", timeout=PAINTED_MS)


def test_a_prompt_with_a_dropped_picture_becomes_a_picture_on_the_page(
    service: Service, visit: Visit, picture: Path
) -> None:
    page = visit().sign_in(service.mint("painter").key)
    give_files(page, "drop", picture)
    page.wait_for_selector("#chosen li[data-name^=image_]")
    page.get_by_label("Prompt", exact=True).fill("a red circle on a white background")
    page.get_by_label("Width").fill("96")
    page.get_by_label("Height").fill("128")
    expect(page.get_by_label("Size")).to_have_value("")
    page.get_by_label("Steps").fill("24")
    page.get_by_label("Seed", exact=True).fill("12")
    page.evaluate(WATCH)
    page.get_by_role("button", name="Create").click()
    wait_for(page, "completed")
    steps = [int(line.split()[1]) for line in page.evaluate("window.seen") if line.startswith("Step")]
    assert len(set(steps)) > 2
    assert steps == sorted(steps)
    expect(page.locator("#announce")).to_have_text("Your picture is ready.")

    shown = page.locator("[data-stage] .picture img")
    expect(shown).to_have_js_property("naturalWidth", 96)
    width, height, *colour = shown.evaluate(PIXEL)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    saved = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert (width, height) == (96, 128) == saved.size
    assert tuple(colour) == saved.convert("RGB").getpixel((40, 50))

    page.get_by_role("link", name="Gallery").click()
    thumbnail = page.get_by_role("img", name="a red circle on a white background")
    expect(thumbnail).to_have_js_property("naturalWidth", 96)
    thumbnail.click()
    page.get_by_role("link", name="Use again").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red circle on a white background")
    for label, value in {"Width": "96", "Height": "128", "Steps": "24"}.items():
        expect(page.get_by_label(label)).to_have_value(value)
    expect(page.get_by_label("Seed", exact=True)).to_have_value("12")
    expect(page.locator("#chosen img")).to_have_js_property("naturalWidth", 96)


def test_a_browser_without_scripts_makes_a_picture_too(service: Service, visit: Visit, picture: Path) -> None:
    page = visit(java_script_enabled=False).sign_in(service.mint("plain").key)
    page.get_by_label("Prompt", exact=True).fill("a blue square")
    page.get_by_label("Width").fill("64")
    page.get_by_label("Height").fill("64")
    page.locator("#files").set_input_files(picture)
    page.get_by_role("button", name="Create").click()
    wait_for(page, "completed")
    expect(page.locator(".picture img")).to_be_visible()
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()


def test_a_stream_of_events_that_breaks_off_is_taken_up_where_it_was(service: Service, visit: Visit) -> None:
    page = visit().sign_in(service.mint("shaken").key)
    asked: list[str | None] = []

    def break_off(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 1:
            route.fulfill(content_type="text/event-stream", body=BROKEN_OFF)
        elif len(asked) == 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/console/api/events/*", break_off)
    page.get_by_label("Prompt", exact=True).fill("a green star")
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("button", name="Create").click()
    wait_for(page, "completed")
    assert asked[:3] == [None, "1", "1"]


def test_what_is_refused_is_said_at_its_field_and_nothing_is_lost(service: Service, visit: Visit) -> None:
    page = visit().sign_in(service.mint("hasty").key)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#prompt-problem")).to_have_text("This must not be empty.")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.type(HOSTILE)
    page.get_by_label("Steps").fill("51")
    page.get_by_label("Seed", exact=True).fill("-5")
    page.get_by_label("Seed", exact=True).press("Enter")
    expect(page.locator("#steps-problem")).to_have_text("This must be at most 50.")
    expect(page.locator("#seed-problem")).to_contain_text("at least -1")
    expect(page.get_by_label("Steps")).to_be_focused()
    expect(page.get_by_label("Steps")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(HOSTILE)
    expect(page.locator("#prompt-problem")).to_be_hidden()


def test_pictures_are_pasted_put_in_order_and_taken_away_by_keyboard(
    service: Service, visit: Visit, tmp_path: Path
) -> None:
    page = visit().sign_in(service.mint("sorter").key)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture_bytes(seed=number))
    give_files(page, "paste", tmp_path / "0.png", tmp_path / "1.png")
    expect(page.locator("#chosen li[data-name^=image_]")).to_have_count(2)
    names = page.locator("#chosen li").evaluate_all("items => items.map((item) => item.dataset.name)")
    give_files(page, "drop", tmp_path / "2.png")
    expect(page.locator("#reference_images-problem")).to_have_text("This model takes at most 2 reference pictures.")
    page.get_by_role("button", name="Move reference 2 earlier").press("Enter")
    read = "items => items.map((item) => item.dataset.name)"
    assert page.locator("#chosen li").evaluate_all(read) == names[::-1]
    expect(page.get_by_role("button", name="Move reference 1 earlier")).to_be_focused()
    page.get_by_role("button", name="Remove reference 1").press("Space")
    assert page.locator("#chosen li").evaluate_all(read) == names[:1]
    page.reload()
    page.get_by_text("Pictures you added before (2)").click()
    page.get_by_role("checkbox", name="Use earlier picture 1").check()
    expect(page.locator("#chosen li")).to_have_count(1)
    page.get_by_role("button", name="Remove reference 1").click()
    expect(page.get_by_role("checkbox", name="Use earlier picture 1")).not_to_be_checked()
    page.get_by_role("button", name="Delete earlier picture 1 for good").click()
    expect(page.locator("#kept li")).to_have_count(1)
    page.reload()
    expect(page.get_by_text("Pictures you added before (1)")).to_be_visible()


def test_a_picture_that_does_not_arrive_stops_the_press_of_the_button_and_pasted_text_brings_none(
    service: Service, visit: Visit, picture: Path
) -> None:
    page = visit().sign_in(service.mint("unlucky").key)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.url.endswith("/generate") else None)
    uploads: list[Route] = []
    page.route("**/console/api/upload-reference", lambda route: uploads.append(route))  # noqa: PLW0108 - marked by it
    page.get_by_label("Prompt", exact=True).fill("a star")
    page.get_by_label("Prompt", exact=True).evaluate(PASTE_TEXT)
    give_files(page, "drop", picture)
    expect(page.locator("#chosen li.busy")).to_have_count(1)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("button", name="Sending…")).to_be_visible()
    uploads[0].abort()
    expect(page.locator("#form-problem")).to_contain_text("Nothing was sent")
    expect(page.locator("#reference_images-problem")).to_contain_text("reference.png")
    assert (sent, len(uploads)) == ([], 1)


def test_a_click_into_a_table_does_not_stop_it_and_a_control_in_use_is_left_alone(
    service: Service, visit: Visit
) -> None:
    visitor = visit(viewport={"width": 400, "height": 700})
    visitor.page.clock.install()
    page = visitor.sign_in(service.mint("watcher", *Scope).key, "/console/admin")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    table = page.get_by_role("region", name="Jobs of all agents")
    table.evaluate("(table) => { table.focus(); table.scrollLeft = 40; table.dataset.old = 'yes'; }")
    page.clock.run_for(REFRESHED_MS)
    expect(page.locator("[data-old]")).to_have_count(0)
    expect(table).to_be_focused()
    assert table.evaluate("(table) => table.scrollLeft") == 40
    page.locator("[data-refresh]").locator("a, button").first.focus()
    asked.clear()
    page.clock.run_for(REFRESHED_MS)
    assert asked == []


def test_the_owner_pauses_and_a_waiting_job_is_cancelled_without_leaving_the_page(
    service: Service, visit: Visit
) -> None:
    owner = visit().sign_in(service.mint("owner", *Scope).key, "/console/admin")
    owner.get_by_role("button", name="Pause the queue").click()
    expect(owner.get_by_text("Paused since")).to_be_visible()
    try:
        page = visit().sign_in(service.mint("patient").key)
        page.get_by_label("Prompt", exact=True).fill(HOSTILE)
        page.get_by_role("button", name="Create").click()
        wait_for(page, "queued")
        expect(page.locator(".progress-text")).to_contain_text("Place 1 in the queue")
        expect(page.locator("[data-stage]")).to_contain_text("The owner has paused the queue")
        page.get_by_role("button", name="Cancel").press("Enter")
        wait_for(page, "cancelled")
        expect(page.get_by_role("link", name="Use again")).to_be_focused()
        page.get_by_role("link", name="Queue").click()
        expect(page.get_by_text("The owner has paused the queue")).to_be_visible()
        expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    finally:
        owner.get_by_role("button", name="Let the queue go on").click()
        expect(owner.get_by_role("button", name="Let the queue go on")).to_have_count(0)


def test_signed_out_or_with_its_key_revoked_nothing_is_shown_any_more(service: Service, visit: Visit) -> None:
    minted = service.mint("leaver")
    leaver = visit()
    page = leaver.sign_in(minted.key)
    page.get_by_role("link", name="Queue").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert leaver.context.cookies() == []
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page = leaver.sign_in(minted.key)
    page.get_by_label("Prompt", exact=True).fill("a star")
    page.get_by_label("Seed", exact=True).fill("77")
    service.revoke(minted.id)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    leaver.sign_in(service.mint("leaver").key)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("77")


def test_what_was_typed_is_not_shown_to_the_next_agent(service: Service, visit: Visit) -> None:
    minted = service.mint("former")
    leaver = visit()
    page = leaver.sign_in(minted.key)
    page.get_by_label("Prompt", exact=True).fill("a secret star")
    service.revoke(minted.id)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    for key in (service.mint("latter").key, service.mint("former").key):  # nor to the first again: it is forgotten
        leaver.sign_in(key)
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
        page.get_by_role("button", name="Sign out").click()
