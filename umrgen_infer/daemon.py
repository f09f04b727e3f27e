"""The claim loop: one run paints while the one before it is encoded and published."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.disk import DiskGuard
from umrgen_core.errors import Unavailable
from umrgen_core.files import FileStore
from umrgen_core.jobs import Claim
from umrgen_core.logs import get_logger, log_death
from umrgen_core.names import new_process_id
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_core.worker_store import WorkerState, WorkerStore
from umrgen_infer.lease import StopReason
from umrgen_infer.output_check import LoadCheck, OutputCheck, load_output_check
from umrgen_infer.painter import Painter
from umrgen_infer.run import FATAL, Outcome, Run, Workshop

LOG = get_logger("daemon")
RECOVERY_INTERVAL_S = 1.0
IMAGE_THREADS = 2
MAX_RUNS = 2
"""One that paints, one that is published."""

LoadPainter = Callable[[], Painter]


class Daemon:
    """One inference process over one store, serving one model."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        database: Database,
        load_painter: LoadPainter,
        load_check: LoadCheck = load_output_check,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._database = database
        self._disk = DiskGuard(settings.storage)
        self._claims = ClaimStore(database, settings)
        self._workers = WorkerStore(database)
        self._files = FileStore(settings.storage.data_dir)
        self._load_painter = load_painter
        self._load_check = load_check
        self._id = new_process_id()
        self._wakeup = Wakeup(settings.storage.data_dir, Listener.INFER, self._id)
        self._hint = asyncio.Event()
        self._stop = asyncio.Event()
        self._state = WorkerState.LOADING
        self._runs: dict[asyncio.Task[Outcome], Run] = {}
        self._painting_thread = ThreadPoolExecutor(1, thread_name_prefix="painter")
        self._image_threads = ThreadPoolExecutor(IMAGE_THREADS, thread_name_prefix="images")
        self.exit_code: int | None = None

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
            await self._claims.adopt_queue()
        except Unavailable as error:
            LOG.warning("start_delayed", error=error.message)
            return False
        return True

    async def _load(self) -> Workshop | None:
        LOG.info("model_loading", model=self._settings.default_model, worker=self._id)
        load = asyncio.get_running_loop().run_in_executor(self._painting_thread, self._load_models)
        stopping = asyncio.create_task(self._stop.wait())
        futures: set[asyncio.Future[Any]] = {load, stopping}
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not load.done():
            return None
        check, painter = load.result()
        LOG.info("model_ready", model=self._settings.default_model, worker=self._id)
        return Workshop(
            self._settings,
            self._clock,
            self._claims,
            self._files,
            painter,
            check,
            self._painting_thread,
            self._image_threads,
        )

    def _load_models(self) -> tuple[OutputCheck | None, Painter]:
        """The check comes first: where its package is missing, nobody waits minutes for weights to hear so."""
        return self._load_check(self._settings.safety), self._load_painter()

    async def _work(self, workshop: Workshop) -> None:
        await self._set_state(WorkerState.READY)
        while not self._stop.is_set():
            claim = await self._claim()
            if claim is None:
                await self._wait_for_hint()
            else:
                await self._start(Run(workshop, claim), alone=claim.job.attempts > 1)
        await self._set_state(WorkerState.STOPPING)
        await self._finish_runs()

    async def _claim(self) -> Claim | None:
        self._hint.clear()
        if await asyncio.to_thread(self._disk.is_low):
            LOG.warning("claim_delayed", error="the disk is nearly full")
            return None
        try:
            return await self._claims.claim_next(self._settings.default_model, self._id)
        except Unavailable as error:
            LOG.warning("claim_delayed", error=error.message)
            return None

    async def _start(self, run: Run, alone: bool) -> None:
        """Begin a run and return when the pipeline is free again.

        A job with attempts behind it runs alone, so that it never costs its neighbour an attempt.
        """
        task = asyncio.create_task(run.execute())  # holds the lease from here on
        task.add_done_callback(self._on_run_ended)
        if alone:
            await self._wait_for_runs(0)
        self._runs[task] = run
        run.may_paint.set()
        stopping = asyncio.create_task(self._stop.wait())
        painted = asyncio.create_task(run.painted.wait())
        await asyncio.wait({task, painted, stopping}, return_when=asyncio.FIRST_COMPLETED)
        painted.cancel()
        stopping.cancel()
        await self._wait_for_runs(0 if alone else MAX_RUNS - 1)

    async def _wait_for_runs(self, most: int) -> None:
        while len(self._runs) > most and not self._stop.is_set():
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({*self._runs, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()

    def _on_run_ended(self, task: asyncio.Task[Outcome]) -> None:
        run = self._runs.pop(task)
        log_death(task)
        if not task.cancelled() and task.exception() is None and task.result() in FATAL:
            LOG.error("process_must_end", outcome=task.result().value)
            self.exit_code = 1
            self.stop()
        self._wakeup.send(Listener.API, run.job_id)

    async def _finish_runs(self) -> None:
        """Let what runs end within the grace, then give it back."""
        if self.exit_code is None and self._runs:
            await asyncio.wait(list(self._runs), timeout=self._settings.infer.stop_grace_s)
        for run in self._runs.values():
            run.lease.stop(StopReason.STOPPING)
        for task, run in list(self._runs.items()):
            if not run.painted.is_set():
                await run.give_back_now(task)
        if self._runs:
            await asyncio.wait(list(self._runs), timeout=self._settings.storage.lock_timeout_s)

    async def _wait_for_hint(self) -> None:
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
        with suppress(Unavailable):
            await self._announce()

    async def _announce(self) -> None:
        models = [] if self._state is WorkerState.LOADING else self._settings.infer.models
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
                for recovered in await self._claims.recover_lost():
                    LOG.warning("job_recovered", job_id=recovered.job_id, state=recovered.state.value)
                    self._hint.set()
                    self._wakeup.send(Listener.API, recovered.job_id)
            except Unavailable as error:
                LOG.warning("recovery_delayed", error=error.message)
            await asyncio.sleep(RECOVERY_INTERVAL_S)
