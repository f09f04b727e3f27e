"""What agents, workers and clocks may do in a random history, and what the contract expects of it."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.faults.history import (
    ATTEMPTS,
    CANCELLED,
    COMPLETED,
    FAILED,
    HOUR_US,
    LEASE_S,
    LIMIT,
    QUEUED,
    RETENTION_US,
    RUNNING,
    TTL_S,
    Bench,
    Expected,
)
from umrgen_core import errors
from umrgen_core.files import Shelf
from umrgen_core.job_ends import NewOutput
from umrgen_core.job_store import Submission
from umrgen_core.jobs import Claim
from umrgen_core.names import new_disk_name, new_job_id, new_output_filename, new_reference_filename, output_disk_name
from umrgen_core.reference_store import NewReference
from umrgen_core.requests import AcceptedRequest

REQUEST = AcceptedRequest("tiny-klein", "a star", "", 64, 64, 4, 7, (), ())
ENDS = ["fail", "give_back", "release", "acknowledge"]
AGENT, PICK = st.integers(0, 1), st.integers(0, 30)
Refusal = type[Exception] | None


class History(Bench):
    """What agents, workers and clocks may do, in any order."""

    @initialize()
    def two_agents_submit(self) -> None:
        for agent in (0, 0, 1):
            self.upload(agent)
            self.submit(agent, 0, "", self.names[-1:])

    @precondition(lambda self: len(self.pictures) < 8)
    @rule(agent=AGENT)
    def upload(self, agent: int) -> None:
        content = os.urandom(40)
        published = self.files.publish_bytes(Shelf.REFERENCES, new_disk_name("png"), content)
        name, digest = new_reference_filename(self.clock.wall, "png"), sha256(content).hexdigest()
        source = (published.bytes, published.sha256, digest, 64, 64, 40, "png")
        new = NewReference(name, published.disk_name, "png", 64, 64, *source)
        assert self.call(self.references.put(self.agents[agent], new))[1] is None
        self.pictures[name] = (agent, self.clock.wall + RETENTION_US)
        self.names.append(name)

    @rule(agent=AGENT, picks=st.lists(PICK, max_size=2))
    def submit_with_pictures(self, agent: int, picks: list[int]) -> None:
        names = [name for name in self.names if self.is_live(name, agent)]
        self.submit(agent, 0, "", [names[pick % len(names)] for pick in picks] if names else [])

    @rule(agent=AGENT, body=AGENT, key=st.sampled_from("ab"), pick=PICK)
    def submit_with_key(self, agent: int, body: int, key: str, pick: int) -> None:
        """Any picture there ever was, or none."""
        name = self.names[pick % len(self.names)] if self.names and pick % 3 == 0 else None
        self.submit(agent, body, key, [name] if name else [])

    def submit(self, agent: int, body: int, key: str, names: list[str]) -> None:
        pins = tuple(names)
        kept = self.replays.get((agent, key), (0, 0, None))
        replayed = bool(key) and kept[0] > self.clock.wall
        expected: type[Exception] | None = None
        if replayed:
            expected = None if kept[1] == body else errors.IdempotencyConflict
        elif not all(self.is_live(name, agent) for name in pins):
            expected = errors.ReferenceNotFound
        elif sum(job.agent == agent for job in self.live()) >= LIMIT:
            expected = errors.ConcurrentLimit
        job_id, request = new_job_id(), replace(REQUEST, reference_names=pins)
        submission = Submission(key, sha256(bytes([body])).hexdigest(), lambda job, _: {"job_id": job.id})
        arguments = (self.agents[agent], job_id, request, "request")
        once = self.job_store.enqueue_once(*arguments, submission) if key else self.job_store.enqueue(*arguments)
        answer, error = self.call(once)
        assert error is expected
        if replayed and error is None:
            assert (answer.answer, answer.first) == (kept[2], False)
        if replayed or error is not None:
            return
        self.count += 1
        self.jobs[job_id] = Expected(self.count, agent, pins, (self.clock.boot_id, self.clock.boot + TTL_S * 1000))
        for name in pins:
            if name.startswith("image"):
                self.pictures[name] = (agent, max(self.pictures[name][1], self.clock.wall + RETENTION_US))
        if key:
            self.replays[agent, key] = (self.clock.wall + 24 * HOUR_US, body, answer.answer)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, erase=st.booleans())
    def cancel_or_erase(self, pick: int, erase: bool) -> None:
        running = [claim.job_id for claim in self.claims if self.holds(claim)]
        ids = running if running and pick % 2 and not erase else list(self.jobs)
        job_id = ids[-1 - pick % len(ids)]
        job = self.jobs[job_id]
        agent = job.agent if pick % 5 else 1 - job.agent
        expected: type[Exception] | None = None
        if job.agent != agent or (job.expires or self.clock.wall + 1) <= self.clock.wall:
            expected = errors.JobNotFound
        elif erase and job.state is RUNNING:
            expected = errors.InvalidRequest
        elif erase and job.output in self.pinned():
            expected = errors.ReferenceInUse
        ask = self.cancellation.erase if erase else self.cancellation.cancel
        answer, error = self.call(ask(self.agents[agent], job_id))
        assert error is expected
        if error is not None:
            return
        if not job.state.ended:
            self.told_cancelled.add(job_id)
        if job.state is QUEUED:
            self.end(job, CANCELLED)
        job.cancel = job.cancel or job.state is RUNNING
        if erase:
            self.forget(job_id)
            if answer.disk_name:
                self.files.delete(Shelf.OUTPUTS, answer.disk_name)

    @precondition(lambda self: any(job.state is QUEUED for job in self.jobs.values()) or not self.claims)
    @rule(completes=st.booleans())
    def claim(self, completes: bool) -> None:
        queued = [
            (self.served[job.agent], job.number, job_id) for job_id, job in self.jobs.items() if job.state is QUEUED
        ]
        claim, error = self.call(self.claim_store.claim_next("tiny-klein", "worker"))
        assert error is None
        assert (claim and claim.job_id) == (min(queued)[2] if queued else None)
        if claim is None:
            return
        job = self.jobs[claim.job_id]
        job.state, job.fence, job.attempts = RUNNING, job.fence + 1, job.attempts + 1
        job.lease = (self.clock.boot_id, self.clock.boot + LEASE_S * 1000)
        self.served[job.agent] = max(self.served) + 1
        assert (claim.fence, claim.job.attempts, len(claim.pins)) == (job.fence, job.attempts, len(job.pins))
        self.claims.append(claim)
        if completes:
            self.jobs_are_as_promised()
            self.complete(claim, allowed=True)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, progress=st.booleans())
    def report(self, pick: int, progress: bool) -> None:
        claim = self.claims[pick % len(self.claims)]
        store = self.claim_store
        answer, error = self.call(store.put_progress(claim, 1) if progress else store.heartbeat(claim))
        assert error is (None if self.holds(claim) else errors.StaleClaim)
        if error is None:
            assert answer is self.jobs[claim.job_id].cancel
            if not progress:
                self.jobs[claim.job_id].lease = (self.clock.boot_id, self.clock.boot + LEASE_S * 1000)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, how=st.sampled_from(["complete", "complete", "complete", *ENDS]))
    def finish(self, pick: int, how: str) -> None:
        claim, store = self.claims[pick % len(self.claims)], self.claim_store
        allowed = self.holds(claim) and self.jobs[claim.job_id].cancel is (how == "acknowledge")
        if how == "complete":
            return self.complete(claim, allowed)
        work = {
            "fail": lambda: store.fail(claim, "model_error", "The model failed.", retryable=True),
            "give_back": lambda: store.give_back(claim),
            "release": lambda: store.release(claim, "The picture could not be saved"),
            "acknowledge": lambda: store.acknowledge_cancel(claim),
        }[how]
        assert self.call(work())[1] is (None if allowed else errors.StaleClaim)
        if not allowed:
            return None
        job = self.jobs[claim.job_id]
        self.claims.remove(claim)
        if how == "give_back" or (how == "release" and job.attempts < ATTEMPTS):
            return self.requeue(job, undone=int(how == "give_back"))
        return self.end(job, CANCELLED if how == "acknowledge" else FAILED)

    def complete(self, claim: Claim, allowed: bool) -> None:
        """As the daemon does it: the file first, then the row; a file that nobody wants is deleted."""
        disk_name = output_disk_name(claim.job_id, claim.fence)
        published = self.files.publish_bytes(Shelf.OUTPUTS, disk_name, os.urandom(50))
        output = NewOutput(new_output_filename(), disk_name, 64, 64, published.bytes, published.sha256)
        error = self.call(self.claim_store.complete(claim, output, {"total": 1.0}, 1.0))[1]
        assert error is (None if allowed else errors.StaleClaim)
        if not allowed:
            self.files.delete(Shelf.OUTPUTS, disk_name)
            if self.holds(claim):  # a cancel was asked for
                assert self.call(self.claim_store.acknowledge_cancel(claim))[1] is None
                self.end(self.jobs[claim.job_id], CANCELLED)
            return
        self.claims.remove(claim)
        job = self.jobs[claim.job_id]
        self.end(job, COMPLETED)
        job.output = output.filename
        self.pictures[output.filename] = (job.agent, self.clock.wall + RETENTION_US)
        self.names.append(output.filename)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, publishes=st.booleans())
    def crash(self, pick: int, publishes: bool) -> None:
        """A worker is gone, perhaps between the file and its row."""
        claim = self.claims.pop(pick % len(self.claims))
        if publishes:
            self.files.publish_bytes(Shelf.OUTPUTS, output_disk_name(claim.job_id, claim.fence), b"an orphan")

    @rule(
        seconds=st.sampled_from([1.0, LEASE_S + 1.0, LEASE_S + 1.0, LEASE_S + 1.0, TTL_S + 1.0, 7300.0]),
        recovers=st.booleans(),
    )
    def time_passes(self, seconds: float, recovers: bool) -> None:
        self.clock.advance(seconds)
        if recovers:
            self.recover()

    @precondition(lambda self: self.live())
    @rule()
    def recover(self) -> None:
        recovered, error = self.call(self.recovery.recover_lost())
        assert error is None
        boot, now, changed = self.clock.boot_id, self.clock.boot, set()
        for job_id, job in self.jobs.items():
            lost = job.state is RUNNING and (job.lease[0] != boot or job.lease[1] < now)
            overdue = job.state is QUEUED and job.queue[0] == boot and job.queue[1] < now
            if lost or overdue:
                changed.add(job_id)
            if lost and job.cancel:
                self.end(job, CANCELLED)
            elif lost and job.attempts < ATTEMPTS:
                self.requeue(job)
            elif lost or overdue:
                self.end(job, FAILED)
        assert {one.job_id for one in recovered} == changed
