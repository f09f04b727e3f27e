"""One claim from start to outcome. What goes wrong in it, whatever it is, ends here."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from enum import StrEnum
from typing import TypeVar, TypeVarTuple

import structlog
from PIL import Image

from umrgen_core.errors import RunError, StaleClaim, Unavailable
from umrgen_core.files import Shelf
from umrgen_core.job_ends import NewOutput
from umrgen_core.jobs import Claim, ErrorCode
from umrgen_core.logs import get_logger
from umrgen_core.names import new_output_filename, output_disk_name
from umrgen_core.profiles import RenderSize
from umrgen_infer.images import fit_picture, require_picture
from umrgen_infer.lease import Lease, RunStopped, StopReason
from umrgen_infer.memory import DoesNotFit
from umrgen_infer.output_check import OutputCheck, Verdict
from umrgen_infer.painter import Commission, DeviceLost, Painting
from umrgen_infer.places import find_place
from umrgen_infer.png import encode_png
from umrgen_infer.run_trace import RunTrace
from umrgen_infer.turn import PaintAlone, Turn
from umrgen_infer.workshop import Workshop

LOG = get_logger("run")
T = TypeVar("T")
Given = TypeVarTuple("Given")
SETTLE_ATTEMPTS = 5
SETTLE_PAUSE_S = 1.0
LONGEST_YIELD_S = 0.02


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    """The picture is published and the row says so."""
    FAILED = "failed"
    """The row has the reason."""
    CANCELLED = "cancelled"
    """As the agent asked."""
    GIVEN_BACK = "given_back"
    """Back in the queue, the attempt undone."""
    RELEASED = "released"
    """Let go after a fault of the box: queued again, or failed when no attempt was left."""
    DROPPED = "dropped"
    """The claim was lost; nothing of this run remains."""
    TIMED_OUT = "timed_out"
    """Failed at its deadline with a thread still busy on it: the process must end."""
    DEVICE_LOST = "device_lost"
    """Let go because the device is broken: the process must end."""


FATAL = frozenset({Outcome.TIMED_OUT, Outcome.DEVICE_LOST})
"""Outcomes after which the pipeline, or a thread beside it, is not free again in this process."""


class Run:
    """The life of one claim."""

    def __init__(self, workshop: Workshop, claim: Claim, turn: Turn) -> None:
        self._shop = workshop
        self._claim = claim
        self.turn = turn
        """When it paints."""
        self._together = False
        """Whether it is being painted with others, whose fault whatever happens may be."""
        self._profile = workshop.settings.models[claim.job.model]
        self._size = self._profile.render_size(claim.job.width, claim.job.height)
        self._loop = asyncio.get_running_loop()
        self.lease = Lease(
            workshop.claims, claim, workshop.settings.jobs.heartbeat_s, lambda: workshop.tell(claim.job_id)
        )
        self.ending = False
        """Whether its outcome, which ends the process, is being written."""
        self._began = time.perf_counter()
        self._began_painting = self._began
        self._timings: dict[str, float] = {}
        self._trace = RunTrace(workshop.tracer, workshop.clock, claim)
        self._ran_with: Mapping[str, object] = {}

    @property
    def alone(self) -> bool:
        """Whether nothing may overlap with it: a job with attempts behind it may cost its neighbours theirs."""
        return self._claim.job.attempts > 1

    @property
    def painted(self) -> bool:
        """Whether it needs the pipeline no more."""
        return not self.turn.has(self.job_id)

    def describe(self) -> str:
        """Which job, and how far it has come."""
        return f"{self.job_id}, step {self.lease.step}/{self._claim.job.steps}"

    @property
    def job_id(self) -> str:
        """The job that is run."""
        return self._claim.job_id

    @property
    def labels(self) -> Mapping[str, object]:
        """What everything that is logged about it carries."""
        claim = self._claim
        return {
            "job_id": claim.job_id,
            "agent": claim.agent,
            "fence": claim.fence,
            "request_id": claim.job.request_id,
        }

    async def give_back_now(self, task: asyncio.Task[Outcome]) -> None:
        """Give the job back without waiting for the pipeline, whose process is about to end."""
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(Unavailable), structlog.contextvars.bound_contextvars(**self.labels):
            self._note_end(await self._give_back())

    async def execute(self) -> Outcome:
        """Run to an outcome, in a task of its own; never raises but for cancellation."""
        structlog.contextvars.bind_contextvars(**self.labels)
        job = self._claim.job
        LOG.info("run_started", attempt=job.attempts, model=job.model)
        async with self.lease:
            try:
                outcome = await self._try()
            except Unavailable:
                # Nobody knows whether the outcome was written, so the file stays where it is: either the
                # row names it, or the lease runs out and the sweep finds an orphan.
                outcome = Outcome.DROPPED
        if outcome not in FATAL:
            self.turn.note_painted(self.job_id)
        self._note_end(outcome)
        return outcome

    def _note_end(self, outcome: Outcome) -> None:
        LOG.info("run_ended", outcome=outcome.value, duration_s=round(time.perf_counter() - self._began, 6))
        self._trace.send(self._began, self._timings, outcome.value)
        lost = self.lease.stop_reason is StopReason.LOST
        self._shop.meter.run_ended(self._claim.job.model, outcome, lease_lost=lost)

    def _in_thread(self, threads: Executor, work: Callable[[*Given], T], *given: *Given) -> asyncio.Future[T]:
        """Start `work` in a thread, where what is logged carries this run's labels too."""
        context = contextvars.copy_context()
        return self._loop.run_in_executor(threads, lambda: context.run(work, *given))

    async def _try(self) -> Outcome:
        try:
            if self.alone:
                await self.turn.may_paint.wait()
            async with asyncio.timeout(self._shop.settings.jobs.deadline_s):
                references = await self._load_references()
            await self.turn.may_paint.wait()
            self.lease.check()
            async with asyncio.timeout(self._shop.settings.jobs.deadline_s - self._timings["load_references"]) as limit:
                painted = await self._paint(references, limit)
                self.turn.note_painted(self.job_id)
                await self._let_next_begin()
                image = await self._check(await self._require_picture(painted))
            return await self._publish(image)
        except RunStopped as stopped:
            return await self._end_stopped(stopped.reason)
        except StaleClaim:
            return Outcome.DROPPED
        except Unavailable:
            raise
        except TimeoutError:
            self.ending = True
            with suppress(Unavailable):  # whether or not it is recorded: this process is of no more use
                await self._end_overdue()
            return Outcome.TIMED_OUT
        except DoesNotFit as shortage:
            error = self._describe_shortage(shortage.largest)
            return await self._fail(ErrorCode.OUT_OF_MEMORY, error, retryable=False)
        except RunError as failure:
            return await self._fail(failure.error_code, failure.message, failure.retryable)
        except DeviceLost as loss:
            self.ending = True
            LOG.error("device_lost", error_type=type(loss).__name__, where=find_place(loss))  # noqa: TRY400
            with suppress(Unavailable):
                await self._lose_device()
            return Outcome.DEVICE_LOST
        except Exception as error:  # noqa: BLE001 - whatever a pipeline raises ends its job, not the daemon
            LOG.error("model_error", error_type=type(error).__name__, where=find_place(error))  # noqa: TRY400
            return await self._fail(
                ErrorCode.MODEL_ERROR, f"The model failed ({type(error).__name__}).", retryable=True
            )

    async def _load_references(self) -> tuple[Image.Image, ...]:
        began = time.perf_counter()
        references: tuple[Image.Image, ...] = ()
        if self._claim.pins:
            references = await self._in_thread(
                self._shop.image_threads,
                self._shop.references.load,
                self._shop.files,
                self._claim.pins,
                self._profile,
                self._size,
            )
        self._timings["load_references"] = time.perf_counter() - began
        self._trace.note_end("load_references")
        return references

    async def _paint(self, references: tuple[Image.Image, ...], limit: asyncio.Timeout) -> object:
        job, size = self._claim.job, self._size
        commission = Commission(
            job.prompt, job.negative, size.width, size.height, job.steps, job.seed, references, job.loras
        )
        self._began_painting = time.perf_counter()
        if job.steps == 1:
            self.turn.note_nearly_painted(self.job_id)
        if self.turn.size > 1:
            painting = await self._paint_together(commission, limit)
        else:
            painting = await self._paint_alone(commission)
        self._trace.note_end("paint")
        self._timings |= painting.timings
        self._ran_with = painting.ran_with
        return painting.image

    async def _paint_alone(self, commission: Commission) -> Painting:
        self._began_painting = time.perf_counter()
        return await self._in_thread(self._shop.painting_thread, self._paint_in_thread, commission)

    async def _paint_together(self, commission: Commission, limit: asyncio.Timeout) -> Painting:
        """Paint with the others of the turn; where that fails, alone, one after another, in this same attempt."""
        self._together = True
        with suppress(PaintAlone):
            painting = await self.turn.paint(commission, self._on_step)
            self._together = False
            return painting
        self._together = False
        limit.reschedule(None)  # each of those who come first has a deadline of its own
        async with self.turn.solo:
            self.lease.check()
            limit.reschedule(self._loop.time() + self._shop.settings.jobs.deadline_s)
            return await self._paint_alone(commission)

    async def _let_next_begin(self) -> None:
        """The encoder would take the interpreter from the pipeline just when that turns to the next run."""
        if self.turn.next is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_YIELD_S):
                await self.turn.next.begun.wait()

    async def _require_picture(self, painted: object) -> Image.Image:
        """What the pipeline returned, if it is a picture of just the right size."""
        return await self._in_thread(
            self._shop.image_threads, require_picture, painted, self._size.width, self._size.height
        )

    def _paint_in_thread(self, commission: Commission) -> Painting:
        self.turn.note_begun()
        return self._shop.residency.paint(self._claim.job.model, commission, self._on_step)

    def _on_step(self, step: int) -> None:
        """Called in the painting thread."""
        self._shop.beat()
        if step == self._claim.job.steps - 1:
            self._loop.call_soon_threadsafe(self.turn.note_nearly_painted, self.job_id)
        self.lease.on_step(step)

    def _describe_shortage(self, largest: RenderSize | None) -> str:
        job, count = self._claim.job, len(self._claim.pins)
        what = f"{job.width}x{job.height} with {count} references does not fit the device's memory."
        if largest is None:
            return f"{what} Ask for a smaller picture or fewer references."
        size = f"{min(largest.width, job.width)}x{min(largest.height, job.height)}"
        return f"{what} With the same references {size} does."

    async def _check(self, image: Image.Image) -> Image.Image:
        """The picture as it would be served, once the output check, if there is one, lets it pass."""
        check = self._shop.output_check
        if check is None:
            return image
        began = time.perf_counter()
        picture, verdict = await self._in_thread(self._shop.image_threads, self._examine, check, image)
        self._timings["check"] = duration_s = round(time.perf_counter() - began, 6)
        self._trace.note_end("check")
        score = round(verdict.score, 6)
        LOG.info("output_checked", score=score, blocked=verdict.blocked, duration_s=duration_s)
        if verdict.blocked:
            # Not retryable: the same prompt and seed give the same picture, and a client that repeats by itself
            # would only search for a seed that slips through.
            raise RunError(
                ErrorCode.CONTENT_BLOCKED,
                "The finished picture was refused by the output check. Change the prompt and submit it as a new job.",
                retryable=False,
            )
        return picture

    def _examine(self, check: OutputCheck, image: Image.Image) -> tuple[Image.Image, Verdict]:
        job = self._claim.job
        picture = fit_picture(image, job.width, job.height, self._profile)
        return picture, check.examine(picture)

    async def _publish(self, image: Image.Image) -> Outcome:
        began = time.perf_counter()
        try:
            output = await self._in_thread(self._shop.image_threads, self._save, image)
        except OSError:
            LOG.exception("picture_not_saved")
            return await self._release("The picture could not be saved")
        self._timings["save"] = time.perf_counter() - began
        self._trace.note_end("save")
        timings = self._final_timings()
        # Wall time may leap, estimates must not; nor is a model loaded for every run.
        run_s = time.perf_counter() - self._began_painting - self._timings.get("load_model", 0.0)
        try:
            await self._settle(lambda: self._shop.claims.complete(self._claim, output, timings, run_s, self._ran_with))
        except StaleClaim:
            return await self._end_unwanted(output)
        LOG.info("job_completed", **{f"{stage}_s": seconds for stage, seconds in timings.items()})
        return Outcome.COMPLETED

    def _save(self, image: Image.Image) -> NewOutput:
        job = self._claim.job
        picture = fit_picture(image, job.width, job.height, self._profile)
        content = encode_png(picture, self._metadata())
        disk_name = output_disk_name(job.id, self._claim.fence)
        published = self._shop.files.publish_bytes(Shelf.OUTPUTS, disk_name, content)
        return NewOutput(
            new_output_filename(), disk_name, picture.width, picture.height, published.bytes, published.sha256
        )

    def _metadata(self) -> dict[str, object]:
        job = self._claim.job
        metadata: dict[str, object] = {
            "model": job.model,
            "revision": self._profile.revision,
            "seed": job.seed,
            "steps": job.steps,
            "width": job.width,
            "height": job.height,
            "references": [pin.sha256 for pin in self._claim.pins],
            "job_id": job.id,
            "request_id": job.request_id,
        }
        return metadata | ({"prompt": job.prompt} if self._shop.settings.files.embed_prompt else {})

    def _final_timings(self) -> Mapping[str, float]:
        job = self._claim.job
        started_us = job.started_at_us or job.created_at_us
        stages = {
            "queued": (started_us - job.created_at_us) / 1e6,
            **self._timings,
            "total": (self._shop.clock.wall_us() - job.created_at_us) / 1e6,
        }
        return {name: round(max(seconds, 0.0), 6) for name, seconds in stages.items()}

    async def _end_unwanted(self, output: NewOutput) -> Outcome:
        """`complete` found no row: an earlier try may have written it, or nobody wants the picture."""
        if await self._shop.claims.find_completed(self._claim) == output.disk_name:
            return Outcome.COMPLETED
        await asyncio.to_thread(self._shop.files.delete, Shelf.OUTPUTS, output.disk_name)
        return await self._acknowledge_cancel()

    async def _end_stopped(self, reason: StopReason) -> Outcome:
        if reason is StopReason.CANCELLED:
            return await self._acknowledge_cancel()
        if reason is StopReason.STOPPING:
            return await self._give_back()
        return Outcome.DROPPED

    async def _acknowledge_cancel(self) -> Outcome:
        try:
            await self._settle(lambda: self._shop.claims.acknowledge_cancel(self._claim))
        except StaleClaim:
            return Outcome.DROPPED
        return Outcome.CANCELLED

    async def _give_back(self) -> Outcome:
        try:
            await self._settle(lambda: self._shop.claims.give_back(self._claim))
        except StaleClaim:
            return await self._acknowledge_cancel()
        return Outcome.GIVEN_BACK

    async def _release(self, reason: str) -> Outcome:
        """Let go of the job for another attempt, if it has one left: each counts."""
        try:
            await self._settle(lambda: self._shop.claims.release(self._claim, reason))
        except StaleClaim:
            return await self._acknowledge_cancel()
        return Outcome.RELEASED

    async def _end_overdue(self) -> Outcome:
        if self._together:  # it may be another's fault: from now on it runs alone
            return await self._release("The run passed its deadline")
        error = f"The run passed its deadline of {self._shop.settings.jobs.deadline_s:g} s."
        return await self._fail(ErrorCode.TIMEOUT, error, retryable=True)

    async def _lose_device(self) -> Outcome:
        if self._together:  # it may be another's fault, so it is not held against this job; alone it will show
            return await self._release("The device failed")
        try:
            await self._settle(lambda: self._shop.claims.lose_device(self._claim))
        except StaleClaim:
            return await self._acknowledge_cancel()
        return Outcome.RELEASED

    async def _fail(self, error_code: str, error: str, retryable: bool) -> Outcome:
        try:
            await self._settle(lambda: self._shop.claims.fail(self._claim, error_code, error, retryable))
        except StaleClaim:
            return await self._acknowledge_cancel()
        LOG.warning("job_failed", error_code=error_code)
        return Outcome.FAILED

    async def _settle(self, write: Callable[[], Awaitable[None]]) -> None:
        """Insist on the write that ends the claim while the store is busy. Raises Unavailable in the end."""
        for attempt in range(SETTLE_ATTEMPTS):
            try:
                return await write()
            except Unavailable as error:
                LOG.warning("outcome_delayed", tries=attempt + 1, error=error.message)
            await asyncio.sleep(SETTLE_PAUSE_S)
        return await write()
