"""The pipeline's time for one run, or for several whose pictures are painted in one call."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from umrgen_core.logs import get_logger
from umrgen_infer.lease import RunStopped
from umrgen_infer.painter import Commission, DeviceLost, OnStep, Painting
from umrgen_infer.places import find_place
from umrgen_infer.workshop import Workshop

LOG = get_logger("turn")


class PaintAlone(Exception):
    """Painting together came to nothing: each of those who are left paints by itself."""


class _NobodyLeft(Exception):
    """Raised out of the pipeline when each of those who are painted together has been stopped."""


@dataclass(slots=True)
class _Seat:
    """One of those who are painted together."""

    commission: Commission
    on_step: OnStep
    painted: asyncio.Future[Painting]
    stopped: bool = False
    """Only for the painting thread."""


class Turn:
    """What the runs of one turn share, and what the daemon waits for. Belongs to the event loop."""

    def __init__(self, workshop: Workshop, model: str, job_ids: Iterable[str]) -> None:
        self._shop = workshop
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._inside = set(job_ids)
        """Those who are not done with the pipeline."""
        self._near: set[str] = set()
        """Those who have at most one step left."""
        self._seats: list[_Seat] = []
        self.size = len(self._inside)
        """How many runs it began with."""
        self.solo = asyncio.Lock()
        """Held by the run that paints by itself."""
        self.may_paint = asyncio.Event()
        """Set when the pipeline is this turn's."""
        self.begun = asyncio.Event()
        """Set when the pipeline has begun with this turn, or never will."""
        self.nearly_painted = asyncio.Event()
        """Set when at most one step is left, or none is to be waited for any more."""
        self.painted = asyncio.Event()
        """Set when the pipeline is free for the next turn."""
        self.next: Turn | None = None
        """Gets the pipeline after this turn, at once."""

    def has(self, job_id: str) -> bool:
        """Whether a run is not done with the pipeline yet."""
        return job_id in self._inside

    def note_begun(self) -> None:
        """The pipeline has begun. Any thread may say so."""
        self._loop.call_soon_threadsafe(self.begun.set)

    def note_nearly_painted(self, job_id: str) -> None:
        """A run has at most one step left."""
        self._near.add(job_id)
        self._look_ahead()

    def _look_ahead(self) -> None:
        if self._inside <= self._near:
            self.nearly_painted.set()

    def note_painted(self, job_id: str) -> None:
        """A run needs the pipeline no more."""
        self._inside.discard(job_id)
        self._look_ahead()
        if self._inside:
            self._start_if_complete()
            return
        self.begun.set()
        self.painted.set()
        self._hand_over()

    def let_follow(self, turn: Turn) -> None:
        """`turn` gets the pipeline after this one: at once, where this one is done with it."""
        self.next = turn
        if self.painted.is_set():
            self._hand_over()

    def _hand_over(self) -> None:
        if self.next is not None:
            self.next.may_paint.set()

    async def paint(self, commission: Commission, on_step: OnStep) -> Painting:
        """Paint together with all who are still inside, once each of them has come here.

        `on_step` is called in the painting thread; the RunStopped that it raises ends this run alone. Raises
        PaintAlone where the pictures must be painted one by one, and DeviceLost.
        """
        seat = _Seat(commission, on_step, self._loop.create_future())
        self._seats.append(seat)
        self._start_if_complete()
        return await seat.painted

    def _start_if_complete(self) -> None:
        seats = [seat for seat in self._seats if not seat.painted.done()]
        if not seats or len(seats) < len(self._inside):
            return
        self._seats = []
        if len(seats) == 1:
            seats[0].painted.set_exception(PaintAlone())
        else:
            painting = self._loop.run_in_executor(self._shop.painting_thread, self._paint_in_thread, seats)
            # In a context of its own: what is logged there is about all of them, not about the last who came.
            painting.add_done_callback(lambda done: self._answer(seats, done), context=contextvars.Context())

    def _paint_in_thread(self, seats: Sequence[_Seat]) -> Sequence[Painting]:
        self.note_begun()
        commissions = [seat.commission for seat in seats]

        def on_step(step: int) -> None:
            for seat in seats:
                self._tell(seat, step)
            if all(seat.stopped for seat in seats):
                raise _NobodyLeft

        return self._shop.residency.paint_together(self._model, commissions, on_step)

    def _tell(self, seat: _Seat, step: int) -> None:
        """One who is stopped leaves at once; the others go on, and its picture is painted for nobody."""
        if seat.stopped:
            return
        try:
            seat.on_step(step)
        except RunStopped as stopped:
            seat.stopped = True
            self._loop.call_soon_threadsafe(_refuse, seat, stopped)

    def _answer(self, seats: Sequence[_Seat], done: asyncio.Future[Sequence[Painting]]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            for seat, painting in zip(seats, done.result(), strict=True):
                if not seat.painted.done():
                    seat.painted.set_result(painting)
            return
        if not isinstance(error, DeviceLost | _NobodyLeft):
            LOG.warning(
                "batch_failed",
                model=self._model,
                job_ids=sorted(self._inside),
                error_type=type(error).__name__,
                where=find_place(error),
            )
        self._near.clear()
        for seat in seats:
            # Nobody knows whose fault it was: each tries for itself, in the same attempt.
            _refuse(seat, _copy(error) if isinstance(error, DeviceLost) else PaintAlone())


def _copy(loss: DeviceLost) -> DeviceLost:
    """The same for one of several who raise it, each with a traceback of its own."""
    copied = DeviceLost(str(loss))
    copied.__cause__ = loss
    return copied


def _refuse(seat: _Seat, error: Exception) -> None:
    if not seat.painted.done():
        seat.painted.set_exception(error)
