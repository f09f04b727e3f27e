"""An agent that paints, looks at what came, and goes on from there.

    UMRGEN_URL=… UMRGEN_API_KEY=… python agent_loop.py FOLDER "a blue square" "a red circle"

`decide` stands for your language model: it sees what was asked and what came of it, and says what to do next. All the
rest is what such a loop needs around it: several jobs at a time, errors that the model can act on, pictures that become
references, and jobs that are not left behind.
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from umrgen_client import AsyncClient, InvalidRequest, JobFailed, Picture, SafetyViolation, UmrgenError

MAX_ROUNDS = 4


@dataclass
class Action:
    """What to paint next, or what to say when there is no more to do."""

    prompt: str = ""
    width: int = 256
    references: tuple[Picture, ...] = ()
    final: str = ""


def decide(wish: str, pictures: list[Picture], complaint: str) -> Action:
    """Your model's part. This one paints the wish, mends what was complained of, then paints a variation."""
    if complaint.startswith("reword"):
        return Action(final=f"I will not paint {wish!r}.")
    if complaint.startswith("width"):
        return Action(wish, width=128)
    if not pictures:
        return Action(wish, width=5000)  # too large: the service says what would work
    if len(pictures) == 1:
        return Action("the reference on a green background", references=(pictures[0],), width=128)
    return Action(final=f"{wish!r}: {len(pictures)} pictures, the last with seed {pictures[-1].job.seed}")


async def act(client: AsyncClient, action: Action) -> tuple[Picture | None, str]:
    """A picture, or a complaint in words that the model can use."""
    try:
        job = await client.generate(
            action.prompt, references=action.references, width=action.width, height=action.width
        )
        try:
            return await (await job.wait(timeout_s=300)).fetch(), ""
        except asyncio.CancelledError:  # nobody wants it any more; without this it would be painted all the same
            await job.cancel()
            raise
    except InvalidRequest as error:
        return None, "; ".join(f"{one.field}: {one.problem}, would work: {one.nearest}" for one in error.fields)
    except SafetyViolation as error:
        return None, f"reword: {error.message}"
    except JobFailed as error:
        if error.retryable:
            return None, ""
        raise


async def fulfil(client: AsyncClient, wish: str, folder: Path, number: int) -> str:
    """One wish from the first prompt to the last word."""
    pictures: list[Picture] = []
    complaint = ""
    for _ in range(MAX_ROUNDS):
        action = decide(wish, pictures, complaint)
        if action.final:
            return action.final
        picture, complaint = await act(client, action)
        if picture is not None:
            pictures.append(picture)
            picture.save(folder / f"wish-{number}-{len(pictures)}.png")
    return f"{wish!r}: not done after {MAX_ROUNDS} rounds"


async def main(folder: Path, wishes: list[str]) -> None:
    """All wishes together: the client waits for a place where the key allows one job at a time."""
    async with AsyncClient() as client:
        limits = (await client.me()).limits
        print(f"jobs at a time: {limits['concurrent_jobs']}")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fulfil(client, wish, folder, n)) for n, wish in enumerate(wishes, 1)]
        for task in tasks:
            print(task.result())


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
    except* UmrgenError as errors:
        sys.exit(f"stopped: {errors.exceptions[0]}")
