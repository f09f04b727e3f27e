"""Jobs and references as the templates need them: the API's status, with the console's own links to pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from umrgen_api.console.sessions import PATH
from umrgen_api.render import output_url
from umrgen_api.routes.status import describe_job
from umrgen_api.services import Services
from umrgen_core.agents import Agent
from umrgen_core.jobs import Job, JobState
from umrgen_core.profiles import MAX_SIDE_PX, MIN_SIDE_PX, ModelProfile
from umrgen_core.queue_control import QueueControl

JobView = dict[str, object]


@dataclass(frozen=True, slots=True)
class ChosenImage:
    """An image to paint from: what the request calls it, and where the console shows it."""

    name: str
    src: str


def reference_src(filename: str) -> str:
    """Where the console shows an upload of the signed-in agent."""
    return f"{PATH}/references/{filename}"


def output_src(filename: str) -> str:
    """Where the console shows a picture of the signed-in agent."""
    return f"{PATH}/outputs/{filename}"


async def view_job(services: Services, agent: Agent, job: Job) -> JobView:
    """One job with its picture and the images it was made from, as far as they are still there."""
    images, gone = await find_images(services, agent, job.reference_names)
    is_held = job.state is JobState.QUEUED and (await QueueControl(services.database).read()).paused
    return {**await view_row(services, job), "references": images, "references_gone": gone, "is_held": is_held}


async def view_row(services: Services, job: Job) -> JobView:
    """One job of a list."""
    picture = None if job.output is None else output_src(job.output.filename)
    return {**await describe_job(services, job), "picture": picture, "created_at_us": job.created_at_us,
            "expires_at_us": job.expires_at_us, "ended": job.state.ended}  # fmt: skip


async def find_images(services: Services, agent: Agent, names: Iterable[str]) -> tuple[list[ChosenImage], int]:
    """The agent's live images among `names`, in order, and how many are gone."""
    found = [await _find_image(services, agent, name) for name in names]
    live = [image for image in found if image is not None]
    return live, len(found) - len(live)


async def _find_image(services: Services, agent: Agent, name: str) -> ChosenImage | None:
    filename = name.partition("?")[0].rpartition("/")[2]
    reference = await services.references.find(filename)
    if reference is not None and reference.agent_id == agent.id:
        return ChosenImage(reference.filename, reference_src(reference.filename))
    output = await services.references.find_output(filename)
    if output is not None and output.agent_id == agent.id:
        return ChosenImage(output_url(output), output_src(output.filename))
    return None


def view_models(models: dict[str, ModelProfile]) -> list[dict[str, object]]:
    """What the form must know of each model; the default first."""
    return [
        {
            "name": name,
            "steps": profile.steps,
            "min_steps": profile.min_steps,
            "max_steps": profile.max_steps,
            "min_references": profile.min_references,
            "max_references": profile.references,
            "max_pixels": profile.max_area_px,
            "negative": profile.negative,
            "native": profile.native_px,
            "min_side": MIN_SIDE_PX,
            "max_side": MAX_SIDE_PX,
        }
        for name, profile in models.items()
    ]
