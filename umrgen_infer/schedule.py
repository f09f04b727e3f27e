"""Which model the next job may be of, and which jobs may be painted in one call. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from umrgen_core.jobs import Job


def choose_models(
    waiting_s: Mapping[str, float], free: Collection[str], since_load_s: float, load_s: float, max_wait_s: float
) -> tuple[str, ...]:
    """The models to claim the next job from; empty when none has any.

    `waiting_s` is how long each model has had a job waiting and not been loaded; of the `free` models, which
    cost nothing to go to, only their being there counts. A model that must be loaded first has its turn when
    no free one has work, or when it has waited for `max_wait_s`. `since_load_s` ago the last load ended, which
    took `load_s`: what was loaded then has its share of time first, so that models that push each other out
    do not spend it all on loading.
    """
    absent = {model: seconds for model, seconds in waiting_s.items() if model not in free}
    ready = tuple(model for model in free if model in waiting_s)
    if not absent:
        return ready
    longest = max(absent, key=lambda model: absent[model])
    # Models that take turns share the wait that each is promised, and none has less time than its load took.
    share_s = max(max_wait_s / len(absent), load_s)
    is_due = absent[longest] >= max_wait_s and since_load_s >= share_s
    return (longest,) if is_due or not ready else ready


def go_together(one: Job, other: Job) -> bool:
    """Whether two jobs can be painted in one call of the pipeline: only words, seed and agent may differ.

    A pipeline may read an empty negative prompt otherwise than none at all.
    """
    return _describe(one) == _describe(other) and not (one.reference_names or one.loras)


def _describe(job: Job) -> tuple[object, ...]:
    return job.model, job.width, job.height, job.steps, job.reference_names, job.loras, bool(job.negative)
