"""GET and POST /console: ask for a picture. Scripts speak to the API's handlers; without them the form is posted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from aiohttp import web

from umrgen_api.access import Access, hold_to
from umrgen_api.console.forms import PictureForm, receive_pictures
from umrgen_api.console.gate import FORM_TOKEN_FIELD, enter_to_submit, page, require_form_token, session_of
from umrgen_api.console.pages import lead_to, show
from umrgen_api.console.sessions import PATH, Session
from umrgen_api.console.views import ChosenImage, find_images, reference_src, view_job, view_models
from umrgen_api.errors import HTTP_ERRORS
from umrgen_api.rates import Rate
from umrgen_api.render import output_url
from umrgen_api.routes.references import keep_image
from umrgen_api.services import services_of
from umrgen_api.submission import submit_job
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import (
    ConcurrentLimit,
    FieldProblem,
    FileTooLarge,
    Forbidden,
    InvalidImage,
    InvalidRequest,
    RateLimit,
    RequestError,
    SafetyViolation,
    Unauthorized,
)
from umrgen_core.jobs import Job
from umrgen_core.profiles import MAX_REFERENCES
from umrgen_core.requests import DEFAULT_SIDE_PX, MAX_PROMPT_CHARS, MAX_SEED

SHOWN_REFERENCES = 60
"""As many of the agent's uploads are offered; the newest come first."""
TEXTS = ("prompt", "negative", "model")
NUMBERS = ("width", "height", "steps", "seed")
REFERENCES = "reference_images"
SIZES = ((512, 512), (1024, 1024), (768, 1024), (1024, 768), (720, 1280), (1280, 720))
_WHOLE = re.compile(r"-?\d{1,16}")

Values = dict[str, str]


async def lead_to_form(_: web.Request) -> web.Response:
    """The address as people type it."""
    return lead_to(PATH)


@page(Scope.READ)
async def show_form(request: web.Request) -> web.Response:
    """An empty form, or one filled in from an earlier job (`?use=`), or with its picture to paint from (`?with=`)."""
    agent = session_of(request).agent
    values, images, notices = _default_values(request), list[ChosenImage](), list[str]()
    job = await _find_job(request, agent, "use")
    if job is not None:
        values = _values_of(job)
        images, gone = await find_images(services_of(request), agent, job.reference_names)
        notices += [f"{gone} of its references are no longer kept."] if gone else []
    base = await _find_job(request, agent, "with")
    if base is not None and base.output is not None:
        added, _ = await find_images(services_of(request), agent, [output_url(base.output)])
        images = added + images
    if (job, base) == (None, None) and {"use", "with"} & set(request.query):
        notices.append("That picture is no longer kept.")
    return await _show(request, values, images, notices=notices)


async def post_form(request: web.Request) -> web.Response:
    """The form as a browser without scripts sends it: pictures and all in one."""
    session = await enter_to_submit(request)
    with ExitStack() as stack:
        form = await receive_pictures(request, stack, lambda so_far: _admit_file(request, session, so_far))
        require_form_token(session, form.value(FORM_TOKEN_FIELD))
        names = [text for name, text in form.fields if name == REFERENCES]
        try:
            for path, upload in form.files:
                names.append((await keep_image(services_of(request), session.agent, path, upload)).filename)
            if form.refusal is not None:
                raise form.refusal
            hold_to(request, session.agent, Access(Scope.GENERATE, Rate.WRITE))
            answer = await submit_job(request, session.agent, _to_body(form, names), None)
        except (Unauthorized, Forbidden):
            raise
        except RequestError as error:
            images, _ = await find_images(services_of(request), session.agent, names)
            values = {name: form.value(name) for name in (*TEXTS, *NUMBERS)}
            return await _show(request, values, images, error=error)
    return lead_to(f"{PATH}/jobs/{answer.answer['job_id']}")


def _admit_file(request: web.Request, session: Session, form: PictureForm) -> None:
    """Each file counts as its own upload would, and the token comes before all of them."""
    require_form_token(session, form.value(FORM_TOKEN_FIELD))
    hold_to(request, session.agent, Access(Scope.UPLOAD, Rate.WRITE))
    if len(form.files) >= MAX_REFERENCES:
        raise InvalidRequest([FieldProblem(REFERENCES, f"takes at most {MAX_REFERENCES} pictures", MAX_REFERENCES)])


def _to_body(form: PictureForm, names: list[str]) -> dict[str, Any]:
    """The form as the JSON it would be; what is left empty is left out."""
    body: dict[str, Any] = {name: form.value(name) for name in TEXTS if form.value(name)}
    for name in NUMBERS:
        text = form.value(name).strip()
        if text:
            body[name] = int(text) if _WHOLE.fullmatch(text) else text
    return {"prompt": "", **body, REFERENCES: names}


async def _show(
    request: web.Request,
    values: Values,
    images: list[ChosenImage],
    *,
    notices: list[str] | None = None,
    error: RequestError | None = None,
) -> web.Response:
    services, agent = services_of(request), session_of(request).agent
    kept = await services.references.list_live(agent.id)
    active = await services.jobs.list_active(agent)
    return show(
        request,
        "create.html",
        status=200 if error is None else HTTP_ERRORS[type(error)].status,
        models=view_models(services.settings.served_models),
        values=values,
        images=images,
        kept=[ChosenImage(one.filename, reference_src(one.filename)) for one in kept[:SHOWN_REFERENCES]],
        sizes=SIZES,
        notices=notices or [],
        problems={} if error is None else _problems_by_field(error),
        problem=None if error is None else say(error),
        job=await view_job(services, agent, active[-1]) if active else None,
        max_prompt=MAX_PROMPT_CHARS,
        max_seed=MAX_SEED,
    )


def say(error: RequestError) -> str:
    """The sentence of an error, for who has pages and no API."""
    if isinstance(error, ConcurrentLimit):
        return "You have as many pictures under way as you may. Wait for one to end; the queue shows them."
    if isinstance(error, RateLimit):
        wait_s = math.ceil(error.retry_after_s or 1)
        return f"You have asked for a lot within a minute. Try again in {wait_s} s."
    if isinstance(error, InvalidRequest):
        return "Some of it needs another look; what is wrong stands at the fields."
    return error.message


def _problems_by_field(error: RequestError) -> Mapping[str, str]:
    """What is wrong, at the fields that it is wrong with."""
    if isinstance(error, InvalidRequest):
        listed = error.extra.get("errors")
        problems = listed if isinstance(listed, list) else []
        return {str(one["field"]).partition("[")[0]: f"This {one['problem']}." for one in problems}
    if isinstance(error, SafetyViolation):
        return {str(error.extra["field"]): error.message}
    if isinstance(error, InvalidImage | FileTooLarge):
        return {REFERENCES: error.message}
    return {}


def _default_values(request: web.Request) -> Values:
    settings = services_of(request).settings
    side = str(DEFAULT_SIDE_PX)
    return {"prompt": "", "negative": "", "model": settings.default_model, "width": side, "height": side,
            "steps": "", "seed": ""}  # fmt: skip


def _values_of(job: Job) -> Values:
    return {name: str(getattr(job, name)) for name in (*TEXTS, *NUMBERS)}


async def _find_job(request: web.Request, agent: Agent, name: str) -> Job | None:
    job_id = request.query.get(name)
    return None if job_id is None else await services_of(request).jobs.find(agent, job_id)
