-- Jobs as the workers see them. Every write names the fence that it was claimed under.

-- name: find_next(model)^
-- The next job in fair order: the agent served least recently, then its oldest job. One index probe
-- for each agent that waits, however many jobs there are. last_served lets heads of several models be
-- compared; attempts tells a job that must run alone. In a paused queue there is no next job.
WITH RECURSIVE waiting (agent_id) AS (
    SELECT min(agent_id) FROM jobs
    WHERE state = 'queued' AND model = :model
        AND NOT EXISTS (SELECT 1 FROM queue_control WHERE id = 1 AND paused_at_us IS NOT NULL)
    UNION ALL
    SELECT (
        SELECT min(j.agent_id) FROM jobs AS j
        WHERE j.state = 'queued' AND j.model = :model AND j.agent_id > waiting.agent_id
    )
    FROM waiting WHERE waiting.agent_id IS NOT NULL
),
heads (agent_id, seq) AS (
    SELECT w.agent_id, (
        SELECT min(j.seq) FROM jobs AS j
        WHERE j.state = 'queued' AND j.model = :model AND j.agent_id = w.agent_id
    )
    FROM waiting AS w WHERE w.agent_id IS NOT NULL
)
SELECT next.seq, next.agent_id, next.last_served, head.id, head.attempts
FROM (
    SELECT h.seq, h.agent_id, a.last_served
    FROM heads AS h INNER JOIN agents AS a ON a.id = h.agent_id
    ORDER BY a.last_served, h.seq
    LIMIT 1
) AS next
INNER JOIN jobs AS head ON head.seq = next.seq;

-- name: list_waiting_models()
-- Each model that jobs wait for, with the deadline of the one that entered the queue first. One index
-- probe for each model, however many jobs there are.
WITH RECURSIVE waiting (model) AS (
    SELECT min(model) FROM jobs WHERE state = 'queued'
    UNION ALL
    SELECT (SELECT min(j.model) FROM jobs AS j WHERE j.state = 'queued' AND j.model > waiting.model)
    FROM waiting WHERE waiting.model IS NOT NULL
)
SELECT w.model, (
    SELECT min(j.queue_until_boot_ms) FROM jobs AS j WHERE j.state = 'queued' AND j.model = w.model
) AS queue_until_boot_ms
FROM waiting AS w WHERE w.model IS NOT NULL;

-- name: claim(seq, worker_id, now_us, boot_id, lease_until_boot_ms)^
UPDATE jobs SET
    state = 'running', fence = fence + 1, attempts = attempts + 1, worker_id = :worker_id,
    lease_boot_id = :boot_id, lease_until_boot_ms = :lease_until_boot_ms, started_at_us = :now_us, step = 0
WHERE seq = :seq AND state = 'queued'
RETURNING id, agent_id;

-- name: mark_served(agent_id)!
UPDATE agents SET last_served = (SELECT max(last_served) + 1 FROM agents) WHERE id = :agent_id;

-- name: list_pins(job_id)
-- The images of a job in the agent's order.
SELECT
    p.position, p.reference_id, p.output_id,
    coalesce(r.disk_name, o.disk_name) AS disk_name,
    coalesce(r.sha256, o.sha256) AS sha256,
    coalesce(r.bytes, o.bytes) AS bytes
FROM job_references AS p
LEFT JOIN "references" AS r ON r.id = p.reference_id
LEFT JOIN outputs AS o ON o.id = p.output_id
WHERE p.job_id = :job_id
ORDER BY p.position;

-- name: heartbeat(id, fence, boot_id, lease_until_boot_ms)^
UPDATE jobs SET lease_boot_id = :boot_id, lease_until_boot_ms = :lease_until_boot_ms
WHERE id = :id AND state = 'running' AND fence = :fence
RETURNING cancel_requested_at_us;

-- name: put_progress(id, fence, step)^
UPDATE jobs SET step = :step
WHERE id = :id AND state = 'running' AND fence = :fence
RETURNING cancel_requested_at_us;

-- name: insert_output(agent_id, filename, disk_name, width, height, bytes, sha256, now_us, expires_at_us)^
INSERT INTO outputs (agent_id, filename, disk_name, width, height, bytes, sha256, created_at_us, expires_at_us)
VALUES (:agent_id, :filename, :disk_name, :width, :height, :bytes, :sha256, :now_us, :expires_at_us)
ON CONFLICT (disk_name) DO NOTHING
RETURNING id;

-- name: complete(id, fence, output_id, timings, ran_with, now_us, expires_at_us)^
-- Nothing comes back once the agent has asked for a cancel.
UPDATE jobs SET
    state = 'completed', output_id = :output_id, timings = :timings, ran_with = :ran_with, step = steps,
    finished_at_us = :now_us, expires_at_us = :expires_at_us, lease_boot_id = NULL, lease_until_boot_ms = NULL
WHERE id = :id AND state = 'running' AND fence = :fence AND cancel_requested_at_us IS NULL
RETURNING id;

-- name: fail(id, fence, error_code, error, retryable, now_us, expires_at_us)^
UPDATE jobs SET
    state = 'failed', error_code = :error_code, error = :error, retryable = :retryable,
    finished_at_us = :now_us, expires_at_us = :expires_at_us, lease_boot_id = NULL, lease_until_boot_ms = NULL
WHERE id = :id AND state = 'running' AND fence = :fence AND cancel_requested_at_us IS NULL
RETURNING id;

-- name: cancel_running(id, fence, now_us, expires_at_us)^
UPDATE jobs SET
    state = 'cancelled', finished_at_us = :now_us, expires_at_us = :expires_at_us,
    lease_boot_id = NULL, lease_until_boot_ms = NULL
WHERE id = :id AND state = 'running' AND fence = :fence AND cancel_requested_at_us IS NOT NULL
RETURNING id;

-- name: give_back(id, fence, attempts_undone, boot_id, queue_until_boot_ms)^
-- Back to the queue. attempts_undone is 1 when the worker stops in good order, 0 when it was lost.
UPDATE jobs SET
    state = 'queued', attempts = attempts - :attempts_undone, started_at_us = NULL, worker_id = NULL, step = 0,
    lease_boot_id = NULL, lease_until_boot_ms = NULL,
    queue_boot_id = :boot_id, queue_until_boot_ms = :queue_until_boot_ms
WHERE id = :id AND state = 'running' AND fence = :fence AND cancel_requested_at_us IS NULL
RETURNING id;

-- name: count_device_loss(id, fence)^
-- The run took the device down with it.
UPDATE jobs SET device_losses = device_losses + 1
WHERE id = :id AND state = 'running' AND fence = :fence
RETURNING device_losses;

-- name: list_lost(boot_id, now_boot_ms)
-- Running jobs whose lease is over; a lease of another boot always is. Walks the few running rows.
SELECT id, fence, request_id, model, attempts, cancel_requested_at_us,
    (SELECT name FROM agents WHERE agents.id = jobs.agent_id) AS agent
FROM jobs
WHERE state = 'running' AND (lease_until_boot_ms < :now_boot_ms OR lease_boot_id <> :boot_id);

-- name: list_overdue(boot_id, now_boot_ms)
-- Queued jobs past their time in the queue, one index probe for each model that jobs wait for.
WITH RECURSIVE waiting (model) AS (
    SELECT min(model) FROM jobs WHERE state = 'queued'
    UNION ALL
    SELECT (SELECT min(j.model) FROM jobs AS j WHERE j.state = 'queued' AND j.model > waiting.model)
    FROM waiting WHERE waiting.model IS NOT NULL
)
SELECT j.id, j.fence, j.request_id, j.model, a.name AS agent
FROM waiting AS w
CROSS JOIN jobs AS j
INNER JOIN agents AS a ON a.id = j.agent_id
WHERE j.state = 'queued' AND j.model = w.model AND j.queue_until_boot_ms < :now_boot_ms AND j.queue_boot_id = :boot_id
LIMIT 100;

-- name: fail_overdue(id, boot_id, now_boot_ms, error_code, error, now_us, expires_at_us)^
UPDATE jobs SET
    state = 'failed', error_code = :error_code, error = :error, retryable = 1,
    finished_at_us = :now_us, expires_at_us = :expires_at_us
WHERE id = :id AND state = 'queued' AND queue_until_boot_ms < :now_boot_ms AND queue_boot_id = :boot_id
RETURNING id;

-- name: find_foreign_boot(boot_id)^
SELECT 1 FROM jobs WHERE state = 'queued' AND queue_boot_id <> :boot_id LIMIT 1;

-- name: restart_queue_time(boot_id, queue_until_boot_ms)!
-- After a reboot nobody knows how long the machine was off: the time in the queue starts anew.
UPDATE jobs SET queue_boot_id = :boot_id, queue_until_boot_ms = :queue_until_boot_ms
WHERE state = 'queued' AND queue_boot_id <> :boot_id;

-- name: put_worker(id, pid, state, models, now_us, boot_id, now_boot_ms)!
INSERT INTO workers (id, pid, state, models, started_at_us, seen_at_us, seen_boot_id, seen_boot_ms)
VALUES (:id, :pid, :state, :models, :now_us, :now_us, :boot_id, :now_boot_ms)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, models = excluded.models, seen_at_us = excluded.seen_at_us,
    seen_boot_id = excluded.seen_boot_id, seen_boot_ms = excluded.seen_boot_ms;

-- name: delete_worker(id)!
DELETE FROM workers WHERE id = :id;

-- name: delete_lost_workers(boot_id, seen_before_boot_ms)!
DELETE FROM workers WHERE seen_boot_id <> :boot_id OR seen_boot_ms < :seen_before_boot_ms;

-- name: list_workers()
SELECT * FROM workers ORDER BY started_at_us, id;
