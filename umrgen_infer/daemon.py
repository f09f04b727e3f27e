"""The claim loop: one run paints while the one before it is published and the one after it gets ready."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import Unavailable
from umrgen_core.files import FileStore
from umrgen_core.jobs import Claim
from umrgen_core.logs import get_logger, log_death
from umrgen_core.names import new_process_id
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.tracing import Tracer
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_core.worker_store import WorkerState, WorkerStore
from umrgen_infer.claiming import Claiming
from umrgen_infer.lease import StopReason
from umrgen_infer.memory import ReadMemory, read_nothing
from umrgen_infer.output_check import LoadCheck, OutputCheck, load_output_check
from umrgen_infer.reference_cache import ReferenceCache
from umrgen_infer.residency import LoadPainter, Residency
from umrgen_infer.run import FATAL, Outcome, Run
from umrgen_infer.turn import Turn
from umrgen_infer.workshop import Beat, Workshop

LOG = get_logger("daemon")
RECOVERY_INTERVAL_S = 1.0
IMAGE_THREADS = 2
REFERENCE_BYTES = 256 << 20
"""Memory for decoded references."""
TellState = Callable[[WorkerState], None]
MAX_TURNS = 2
"""Held at once: one paints while another is published or waits. A turn is one claim, or those painted together."""


class Daemon:
    """One inference process over one store and one device, serving the models of its settings."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        database: Database,
        load_painter: LoadPainter,
        load_check: LoadCheck = load_output_check,
        *,
        read_memory: ReadMemory = read_nothing,
        beat: Beat = lambda: None,
        tell_state: TellState = lambda _: None,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._claims = ClaimStore(database, settings)
        self._recovery = RecoveryStore(database, settings)
        self._workers = WorkerStore(database)
        self._files = FileStore(settings.storage.data_dir)
        self._load_check = load_check
        self._beat = beat
        self._tell_state = tell_state
        self._tracer = tracer
        self._id = new_process_id()
        self._wakeup = Wakeup(settings.storage.data_dir, Listener.INFER, self._id)
        self._hint = asyncio.Event()
        self._stop = asyncio.Event()
        self._state = WorkerState.LOADING
        self._runs: dict[asyncio.Task[Outcome], Run] = {}
        self._painting_thread = ThreadPoolExecutor(1, thread_name_prefix="painter")
        self._image_threads = ThreadPoolExecutor(IMAGE_THREADS, thread_name_prefix="images")
        self._clock = clock
        self._residency = Residency(settings, clock, load_painter, read_memory, database.meter)
        self._claiming = Claiming(settings, clock, self._claims, self._workers, self._residency, self._id)
        self.exit_code: int | None = None

    def describe(self) -> str:
        """What it does now, in words for whoever looks after the process."""
        if self._state is WorkerState.LOADING:
            return f"loading {self._settings.default_model}"
        painting = [run for run in self._runs.values() if run.turn.may_paint.is_set() and not run.painted]
        runs = painting or list(self._runs.values())
        others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        if self._state is WorkerState.STOPPING:
            return f"stopping, finishes {runs[0].job_id}{others}" if runs else "stopping"
        return f"running {runs[0].describe()}{others}" if runs else "idle"

    def stop(self) -> None:
        """Claim no more; finish or give back what runs."""
        self._stop.set()
        self._hint.set()

    async def serve(self) -> int:
        """Serve until stopped or until the process must be replaced; the exit status."""
        await self._database.integrity.wait()
        await asyncio.to_thread(self._files.prepare)
        while not (self._stop.is_set() or await self._adopt_queue()):
            await self._wait_for_hint()
        self._wakeup.listen(self._on_hint)
        side_tasks = [asyncio.create_task(self._announce_forever()), asyncio.create_task(self._recover_forever())]
        for task in side_tasks:
            task.add_done_callback(log_death)
        try:
            workshop = await self._load()
            if workshop is not None:
                await self._work(workshop)
        finally:
            for task in side_tasks:
                task.cancel()
            await asyncio.gather(*side_tasks, return_exceptions=True)
            self._wakeup.close()
            with suppress(Unavailable):
                await self._workers.withdraw(self._id)
        return self.exit_code or 0

    async def _adopt_queue(self) -> bool:
        try:
            await self._recovery.adopt_queue()
        except Unavailable as error:
            LOG.warning("start_delayed", error=error.message)
            return False
        return True

    async def _load(self) -> Workshop | None:
        LOG.info("model_loading", model=self._settings.default_model, worker_id=self._id)
        load = asyncio.get_running_loop().run_in_executor(self._painting_thread, self._load_first)
        loaded = asyncio.Event()
        load.add_done_callback(lambda _: loaded.set())
        await self._wait_for(loaded)
        if not load.done():
            return None
        check = load.result()
        LOG.info("model_ready", model=self._settings.default_model, worker_id=self._id)
        return Workshop(
            settings=self._settings,
            clock=self._clock,
            claims=self._claims,
            files=self._files,
            residency=self._residency,
            references=ReferenceCache(REFERENCE_BYTES, self._database.meter),
            output_check=check,
            painting_thread=self._painting_thread,
            image_threads=self._image_threads,
            beat=self._beat,
            tell=self._tell_api,
            tracer=self._tracer,
            meter=self._database.meter,
        )

    def _load_first(self) -> OutputCheck | None:
        """The check comes first: where its package is missing, nobody waits minutes for weights to hear so."""
        check = self._load_check(self._settings.safety)
        self._residency.load(self._settings.default_model)
        return check

    async def _work(self, workshop: Workshop) -> None:
        await self._set_state(WorkerState.READY)
        waiting: Turn | None = None
        while not self._stop.is_set():
            turn = waiting or self._begin(workshop, await self._claim())
            waiting = None
            if turn is None:
                await self._wait_for_hint()
            else:
                waiting = await self._let_paint(workshop, turn)
        await self._set_state(WorkerState.STOPPING)
        await self._finish_runs()

    async def _claim(self) -> Sequence[Claim]:
        expected = self._hint.is_set()
        self._hint.clear()
        return await self._claiming.claim(fresh=bool(self._runs), expected=expected)

    def _begin(self, workshop: Workshop, claims: Sequence[Claim]) -> Turn | None:
        """Hold the claims of one turn, and begin what of their runs needs no pipeline."""
        if not claims:
            return None
        for claim in claims:
            self._tell_api(claim.job_id)
        turn = Turn(workshop, claims[0].job.model, [claim.job_id for claim in claims])
        for claim in claims:
            run = Run(workshop, claim, turn)
            task = asyncio.create_task(run.execute())  # holds the lease from here on
            self._runs[task] = run
            task.add_done_callback(self._on_run_ended)
        return turn

    def _tell_api(self, job_id: str) -> None:
        self._wakeup.send(Listener.API, job_id)

    async def _let_paint(self, workshop: Workshop, turn: Turn) -> Turn | None:
        """Give the pipeline to a turn until it is free again; the turn that was made ready meanwhile, if any.

        A job with attempts behind it runs alone, so that it never costs its neighbour an attempt.
        """
        if self._stop.is_set():
            return None
        turn.may_paint.set()
        if any(run.alone for run in self._runs.values() if run.turn is turn):
            await self._wait_for_turns(0)
            return None
        ahead = asyncio.create_task(self._make_ready(workshop, turn))
        await self._wait_for(turn.painted)
        return await ahead

    async def _make_ready(self, workshop: Workshop, turn: Turn) -> Turn | None:
        """While `turn` paints: decode the references of the likely next job, then claim that before the last step.

        Not sooner, since what is claimed loses an attempt when the process is killed; not later, since the
        claim must be on disk before its job begins.
        """
        await self._prefetch(workshop, turn)
        await self._wait_for(turn.nearly_painted)
        await self._wait_for_turns(MAX_TURNS - 1)
        if self._stop.is_set():
            return None
        following = self._begin(workshop, await self._claiming.claim_ahead())
        if following is not None:
            turn.let_follow(following)
        return following

    async def _prefetch(self, workshop: Workshop, turn: Turn) -> None:
        while not turn.nearly_painted.is_set() and not self._stop.is_set():
            self._hint.clear()
            likely = await self._claiming.find_ahead()
            if likely is None:
                await self._wait_for(self._hint, turn.nearly_painted)
                continue
            if likely.pins:
                self._image_threads.submit(workshop.prefetch, likely)
            return

    async def _wait_for(self, *events: asyncio.Event) -> None:
        """Wait until one of the events is set, or the daemon stops."""
        waiting = [asyncio.create_task(event.wait()) for event in (*events, self._stop)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def _wait_for_turns(self, most: int) -> None:
        while len({run.turn for run in self._runs.values()}) > most and not self._stop.is_set():
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({*self._runs, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()

    def _on_run_ended(self, task: asyncio.Task[Outcome]) -> None:
        run = self._runs.pop(task)
        log_death(task)
        if not task.cancelled() and task.exception() is None and task.result() in FATAL:
            with structlog.contextvars.bound_contextvars(**run.labels):
                LOG.error("process_must_end", outcome=task.result().value)
            self.exit_code = 1
            self.stop()
        else:
            run.turn.note_painted(run.job_id)
        self._hint.set()  # a job that runs alone may have waited for it
        self._tell_api(run.job_id)

    async def _finish_runs(self) -> None:
        """Let what runs end within the grace, then give it back; what has not begun to paint at once."""
        for task, run in list(self._runs.items()):
            if not run.turn.may_paint.is_set():
                await run.give_back_now(task)
        if self.exit_code is None and self._runs:
            await asyncio.wait(list(self._runs), timeout=self._settings.infer.stop_grace_s)
        ending = [task for task, run in self._runs.items() if run.ending]
        if ending:  # of a batch that went wrong each writes what it costs
            await asyncio.wait(ending, timeout=self._settings.storage.lock_timeout_s)
        for run in self._runs.values():
            run.lease.stop(StopReason.STOPPING)
        for task, run in list(self._runs.items()):
            if not run.painted:
                await run.give_back_now(task)
        if self._runs:
            await asyncio.wait(list(self._runs), timeout=self._settings.storage.lock_timeout_s)

    async def _wait_for_hint(self) -> None:
        self._beat()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.infer.poll_s):
                await self._hint.wait()

    def _on_hint(self, message: str) -> None:
        self._hint.set()
        for run in self._runs.values():
            if run.job_id == message:
                run.lease.hurry()

    async def _set_state(self, state: WorkerState) -> None:
        self._state = state
        self._database.meter.worker_changed(state)
        with suppress(Unavailable):
            await self._announce()
        self._tell_state(state)

    async def _announce(self) -> None:
        broken = self._residency.find_broken()
        served = [model for model in self._settings.infer.models if model not in broken]
        models = [] if self._state is WorkerState.LOADING else served
        await self._workers.announce(self._id, os.getpid(), self._state, models)

    async def _announce_forever(self) -> None:
        heartbeat_s = self._settings.jobs.heartbeat_s
        while True:
            try:
                await self._announce()
                await self._workers.forget_lost(heartbeat_s * 100)
            except Unavailable as error:
                LOG.warning("announcement_delayed", error=error.message)
            await asyncio.sleep(heartbeat_s)

    async def _recover_forever(self) -> None:
        while True:
            try:
                for recovered in await self._recovery.recover_lost():
                    self._hint.set()
                    self._tell_api(recovered.job_id)
            except Unavailable as error:
                LOG.warning("recovery_delayed", error=error.message)
            await asyncio.sleep(RECOVERY_INTERVAL_S)
