"""The pages of who is signed in: what they show of jobs and pictures, and that they show it as text."""

from __future__ import annotations

import html
import json
import re

import aiohttp
import pytest

from tests.api.conftest import Server, StartServer
from tests.api.console import Answer, Browser
from tests.api.test_console_sign_in import make_key
from tests.api.test_status import claim, complete_next
from tests.conftest import DEVELOPMENT_KEY, picture_bytes
from umrgen_api.console import assets
from umrgen_api.intake import MAX_FILE_BYTES
from umrgen_core.accounts import Accounts
from umrgen_core.profiles import MAX_REFERENCES

HOSTILE = """</textarea><script src=/x.js></script>"'><img src=x onerror=alert(1)>{{ 7*7 }}&amp;"""
WIDE = {"concurrent_jobs": 50, "rate_per_minute": 500}


@pytest.fixture
async def dev(server: Server) -> Browser:
    browser = Browser(server.url)
    await browser.sign_in(DEVELOPMENT_KEY)
    return browser


def form_of(browser: Browser, fields: dict[str, str], *files: tuple[str, bytes]) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in {"form_token": browser.form_token, **fields}.items():
        form.add_field(name, value)
    for filename, content in files:
        form.add_field("files", content, filename=filename, content_type="image/png")
    return form


async def post(browser: Browser, fields: dict[str, str], *files: tuple[str, bytes]) -> Answer:
    return await browser.ask("POST", "/console", data=form_of(browser, fields, *files))


async def status_of(server: Server, answer: Answer) -> dict[str, object]:
    job_id = answer.headers["Location"].rpartition("/")[2]
    return (await server.call("GET", f"/api/v1/status/{job_id}"))[1]


async def test_a_form_without_scripts_becomes_a_job_with_its_pictures(server: Server, dev: Browser) -> None:
    fields = {"prompt": "a star", "width": "256", "height": "128", "steps": "", "seed": "7", "model": "tiny-klein"}
    answer = await post(dev, fields, ("a.png", picture_bytes()), ("", b""), ("b.png", picture_bytes(seed=1)))
    assert answer.status == 303
    status = await status_of(server, answer)
    assert [status[name] for name in ("prompt", "width", "height", "steps", "seed")] == ["a star", 256, 128, 4, 7]
    assert len(status["reference_images"]) == 2
    page = await dev.get(answer.headers["Location"])
    assert "Place 1 in the queue" in page.text
    assert 'http-equiv="refresh"' in page.text
    for name in status["reference_images"]:
        assert f'src="/console/references/{name}"' in page.text
        assert (await dev.get(f"/console/references/{name}")).headers["Cache-Control"] == "private, no-cache"


async def test_what_is_wrong_with_a_form_stands_at_its_fields_and_nothing_typed_is_lost(
    server: Server, dev: Browser
) -> None:
    fields = {"prompt": HOSTILE, "width": "5", "height": "many", "steps": "400", "seed": "-9"}
    answer = await post(dev, fields, ("a.png", picture_bytes()))
    assert answer.status == 400
    for name, said in {"width": "at least 64", "height": "a whole number", "steps": "at most 50", "seed": "-1"}.items():
        line = answer.text.split(f'id="{name}-problem"', 1)[1].split("</p>", 1)[0]
        assert said in line
        assert "hidden" not in line
    assert f">{html.escape(HOSTILE).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</textarea>" in answer.text
    assert 'value="many"' in answer.text
    assert answer.text.count('name="reference_images" value="image_') == 2  # chosen, and offered again
    assert not (await server.call("GET", "/api/v1/jobs"))[1]["jobs"]


async def test_a_file_that_is_no_picture_is_said_at_the_pictures(dev: Browser) -> None:
    answer = await post(dev, {"prompt": "a star"}, ("<b>.png", b"no picture"))
    assert answer.status == 400
    assert "cannot be used" in answer.text.split('id="reference_images-problem"', 1)[1].split("</p>", 1)[0]


@pytest.mark.parametrize(("files", "status", "said"), [
    ([("a.png", b"x" * (MAX_FILE_BYTES + 1))], 413, "reference_images-problem"),
    ([(f"{number}.png", b"no picture") for number in range(MAX_REFERENCES + 1)], 400, "reference_images-problem"),
], ids=["too large", "too many"])  # fmt: skip
async def test_a_form_whose_files_are_too_large_or_too_many_comes_back_with_all_that_was_typed(
    start_server: StartServer, files: list[tuple[str, bytes]], status: int, said: str
) -> None:
    server = await start_server(limits=WIDE)
    dev = Browser(server.url)
    await dev.sign_in(DEVELOPMENT_KEY)
    form = form_of(dev, {"prompt": "a long prompt"}, ("good.png", picture_bytes()), *files)
    form.add_field("seed", "77")  # below the pictures, as on the page
    answer = await dev.ask("POST", "/console", data=form)
    assert answer.status == status
    assert "hidden" not in answer.text.split(f'id="{said}"', 1)[1].split(">", 1)[0]
    assert ">a long prompt</textarea>" in answer.text
    assert 'value="77"' in answer.text
    assert not (await server.call("GET", "/api/v1/jobs"))[1]["jobs"]


async def test_a_form_beyond_the_rate_comes_back_with_all_that_was_typed(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 1})
    dev = Browser(server.url)
    await dev.sign_in(DEVELOPMENT_KEY)
    for files in ([("a.png", picture_bytes()), ("b.png", picture_bytes(seed=1))], []):
        answer = await post(dev, {"prompt": "a long prompt"}, *files)
        assert answer.status == 429
        assert ">a long prompt</textarea>" in answer.text
        assert re.search(r"Try again in \d+ s\.", answer.text)
    assert not (await server.call("GET", "/api/v1/jobs"))[1]["jobs"]


async def test_a_form_with_a_wrong_token_is_refused_before_a_file_is_taken_in(server: Server, dev: Browser) -> None:
    for token in ("", "wrong"):
        for content in (picture_bytes(), b"x" * (MAX_FILE_BYTES + 1)):
            answer = await post(dev, {"form_token": token, "prompt": "a star"}, ("a.png", content))
            assert answer.status == 403
    assert not (await server.call("GET", "/api/v1/references"))[1]["references"]


async def test_whatever_an_agent_wrote_is_shown_as_text_on_every_page(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    dev = Browser(server.url)
    await dev.sign_in(DEVELOPMENT_KEY)
    await server.generate(prompt=HOSTILE, negative=HOSTILE, **{HOSTILE: 1})
    await complete_next(server)
    await server.generate(prompt=HOSTILE)
    await server.services.claims.fail(await claim(server), "model_error", HOSTILE, retryable=False)
    await server.generate(prompt=HOSTILE)
    jobs = (await server.call("GET", "/api/v1/jobs"))[1]["jobs"]
    pages = ["/console", "/console/gallery", "/console/queue", *(f"/console/jobs/{job['job_id']}" for job in jobs)]
    for path in (*pages, f"/console?use={jobs[-1]['job_id']}", f"/console/jobs/{HOSTILE}"):
        answer = await dev.get(path)
        assert "<script src=/x" not in answer.text
        assert "<img src=x" not in answer.text
        assert "49&amp;" not in answer.text
        if path in pages:
            assert "&lt;script src=/x.js&gt;" in answer.text


async def test_a_finished_picture_is_shown_with_its_settings_and_used_again(server: Server, dev: Browser) -> None:
    reference = (await server.upload(picture_bytes()))[1]["filename"]
    job_id = (await server.generate(seed=11, width=320, reference_images=[reference]))[1]["job_id"]
    output = await complete_next(server)
    page = await dev.get(f"/console/jobs/{job_id}")
    assert f'<img src="/console/outputs/{output.filename}"' in page.text
    assert "session_id" not in page.text
    for text in ("a red circle", "320 \N{MULTIPLICATION SIGN} 1024", "<dd>11</dd>", "Download", "Delete for good"):
        assert text in page.text
    again = await dev.get(f"/console?use={job_id}")
    for text in ('value="320"', 'value="11"', ">a red circle</textarea>", f'data-name="{reference}"'):
        assert text in again.text
    assert f'src="/console/outputs/{output.filename}"' in (await dev.get(f"/console?with={job_id}")).text
    gallery = await dev.get("/console/gallery")
    assert f'/console/jobs/{job_id}"' in gallery.text
    saved = await dev.get(f"/console/outputs/{output.filename}?download")
    assert saved.headers["Content-Disposition"].startswith("attachment")


async def test_a_job_is_cancelled_and_erased_from_its_page(server: Server, dev: Browser) -> None:
    job_id = (await server.generate())[1]["job_id"]
    assert (await dev.post(f"/console/jobs/{job_id}/cancel")).status == 303
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["state"] == "cancelled"
    assert (await dev.post(f"/console/jobs/{job_id}/erase")).headers["Location"] == "/console/gallery"
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 404
    missing = await dev.get(f"/console/jobs/{job_id}")
    assert (missing.status, missing.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


async def test_the_gallery_goes_back_page_by_page(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    dev = Browser(server.url)
    await dev.sign_in(DEVELOPMENT_KEY)
    made = [(await server.generate(seed=number))[1]["job_id"] for number in range(26)]
    for _ in made:
        await complete_next(server)
    first = (await dev.get("/console/gallery")).text
    assert [job_id in first for job_id in made] == [False] * 2 + [True] * 24
    older = first.split('rel="next"')[0].rpartition('href="')[2].rstrip('" ')
    second = (await dev.get(older)).text
    assert [job_id in second for job_id in made] == [True] * 2 + [False] * 24


async def test_what_others_have_is_on_no_page(server: Server, dev: Browser) -> None:
    reference = (await server.upload(picture_bytes()))[1]["filename"]
    job_id = (await server.generate(prompt="a secret star", reference_images=[reference]))[1]["job_id"]
    bob = Browser(server.url)
    await bob.sign_in(await make_key(server, "bob"))
    for path in ("/console", "/console/gallery", "/console/queue"):
        text = (await bob.get(path)).text
        assert not [one for one in ("secret star", job_id, reference) if one in text]
    assert job_id in (await dev.get("/console/queue")).text


async def test_a_key_that_may_only_look_is_told_so_and_can_do_no_more(server: Server) -> None:
    accounts = Accounts(server.services.database)
    await accounts.create_agent("carol", {})
    minted = await accounts.create_key("carol", "key", ["read"], None, {})
    browser = Browser(server.url)
    await browser.sign_in(minted.key)
    assert "lacks the scope “generate”" in (await browser.get("/console")).text
    assert (await post(browser, {"prompt": "a star"})).status == 403
    assert (await browser.post("/console/jobs/x/cancel")).status == 403
    call = await browser.call("POST", "/console/api/generate", json={"prompt": "a star"})
    assert (call.status, json.loads(call.text)["code"]) == (403, "forbidden")


async def test_the_consoles_calls_draw_on_the_rates_of_the_api(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 2, "reads_per_minute": 1000})
    dev = Browser(server.url)
    await dev.sign_in(DEVELOPMENT_KEY)
    heard = [(await dev.call("POST", "/console/api/generate", json={"prompt": "a star"})).status for _ in range(3)]
    assert heard == [202, 429, 429]
    assert (await server.generate())[1]["code"] == "rate_limit"
    assert (await post(dev, {"prompt": "a star"})).status == 429


async def test_neither_key_nor_cookie_nor_prompt_is_logged(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    key = await make_key(server)
    browser = Browser(server.url)
    await browser.sign_in(key)
    answer = await post(browser, {"prompt": "a canary"}, ("canary.png", picture_bytes()))
    await browser.get(answer.headers["Location"])
    await browser.post("/console/sign-in", {"key": "canary key"})
    await browser.post("/console/sign-out")
    logged = "".join(capsys.readouterr())
    assert "route=/console/sign-in" in logged
    for event in ("signed_in", "signed_out"):
        assert re.search(rf"{event} .*agent=alice", logged), event
    assert not [secret for secret in (key, browser.cookie, browser.form_token, "canary") if secret in logged]


async def test_every_file_of_the_console_is_served_and_no_other(server: Server) -> None:
    nobody = Browser(server.url)
    assert {path.name for path in assets.FOLDER.iterdir()} == set(assets.ASSETS)
    for name, media_type in assets.ASSETS.items():
        answer = await nobody.get(f"/console/static/{name}")
        assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, media_type)
        assert not [word for word in ("eval(", "document.write", "@import", "url(http") if word in answer.text]
    for name in ("base.html", "..%2froutes.py", "%2e%2e%2froutes.py", "console.css%00"):
        assert (await nobody.get(f"/console/static/{name}")).status == 404
