-- Jobs as their agents see them. A limit is written as a sum because SQLite looks at the value of a bare
-- parameter there, and so prepares the statement anew, at ten times its cost, each time it is used.

-- name: get_job(id)^
-- One job with its output, whoever's it is.
SELECT
    j.*,
    o.filename AS output_filename, o.disk_name AS output_disk_name, o.width AS output_width,
    o.height AS output_height, o.bytes AS output_bytes, o.sha256 AS output_sha256,
    o.expires_at_us AS output_expires_at_us, a.session_id, a.name AS agent_name
FROM jobs AS j
INNER JOIN agents AS a ON a.id = j.agent_id
LEFT JOIN outputs AS o ON o.id = j.output_id
WHERE j.id = :id;

-- name: list_jobs(agent_id, before, now_us, most)
-- Jobs of one agent, newest first, behind one that was seen.
SELECT
    j.*,
    o.filename AS output_filename, o.disk_name AS output_disk_name, o.width AS output_width,
    o.height AS output_height, o.bytes AS output_bytes, o.sha256 AS output_sha256,
    o.expires_at_us AS output_expires_at_us, a.session_id
FROM jobs AS j
INNER JOIN agents AS a ON a.id = j.agent_id
LEFT JOIN outputs AS o ON o.id = j.output_id
WHERE j.agent_id = :agent_id AND j.seq < :before AND (j.expires_at_us IS NULL OR j.expires_at_us > :now_us)
ORDER BY j.seq DESC
LIMIT 0 + :most;

-- name: list_jobs_in_state(agent_id, state, before, now_us, most)
-- The same, of one state alone.
SELECT
    j.*,
    o.filename AS output_filename, o.disk_name AS output_disk_name, o.width AS output_width,
    o.height AS output_height, o.bytes AS output_bytes, o.sha256 AS output_sha256,
    o.expires_at_us AS output_expires_at_us, a.session_id
FROM jobs AS j
INNER JOIN agents AS a ON a.id = j.agent_id
LEFT JOIN outputs AS o ON o.id = j.output_id
WHERE j.agent_id = :agent_id AND j.state = :state AND j.seq < :before
    AND (j.expires_at_us IS NULL OR j.expires_at_us > :now_us)
ORDER BY j.seq DESC
LIMIT 0 + :most;

-- name: insert_job(id, agent_id, model, prompt, negative, width, height, steps, seed, reference_names, loras, ignored, callback_url, request_id, traceparent, now_us, boot_id, queue_until_boot_ms)^
INSERT INTO jobs (
    id, agent_id, state, model, prompt, negative, width, height, steps, seed,
    reference_names, loras, ignored, callback_url, request_id, traceparent,
    created_at_us, queue_boot_id, queue_until_boot_ms
) VALUES (
    :id, :agent_id, 'queued', :model, :prompt, :negative, :width, :height, :steps, :seed,
    :reference_names, :loras, :ignored, :callback_url, :request_id, :traceparent,
    :now_us, :boot_id, :queue_until_boot_ms
) RETURNING seq;

-- name: pin_image(job_id, position, reference_id, output_id)!
-- Keeps a reference or an output alive until the job has ended.
INSERT INTO job_references (job_id, position, reference_id, output_id)
VALUES (:job_id, :position, :reference_id, :output_id);

-- name: release_pins(job_id)!
-- Part of every transition to an end state.
DELETE FROM job_references WHERE job_id = :job_id;

-- name: get_room(agent_id)^
-- All that is asked before a job is let in. What is counted here has a limit, so that counting stays cheap.
SELECT
    q.draining_at_us,
    a.used_output_bytes,
    (SELECT count(*) FROM jobs WHERE jobs.agent_id = a.id AND jobs.state IN ('queued', 'running')) AS active,
    (SELECT count(*) FROM jobs WHERE jobs.state = 'queued') AS queued
FROM agents AS a INNER JOIN queue_control AS q ON q.id = 1
WHERE a.id = :agent_id;

-- name: find_oldest_active(agent_id)^
SELECT id, state, step, steps, model, width, height, reference_names, started_at_us, created_at_us
FROM jobs
WHERE seq = (SELECT min(seq) FROM jobs WHERE agent_id = :agent_id AND state IN ('queued', 'running'));

-- name: queue_position(model, agent_id, seq, most)^
-- 1 is next. Under fair order every other agent goes before this job at most once for each job that
-- its own agent has before it, plus once more if that other agent was served less recently. An
-- estimate, counted agent by agent until it is beyond `most`. paused_at_us tells that nobody is served.
WITH RECURSIVE own (ahead, last_served) AS MATERIALIZED (
    SELECT
        (SELECT count(*) FROM (
            SELECT 1 FROM jobs
            WHERE state = 'queued' AND model = :model AND agent_id = :agent_id AND seq < :seq
            LIMIT 0 + :most
        ) AS earlier),
        a.last_served
    FROM agents AS a WHERE a.id = :agent_id
),
-- The jobs that go before this one of those agents that come before agent_id.
others (agent_id, counted) AS (
    SELECT min(agent_id), 0 FROM jobs WHERE state = 'queued' AND model = :model
    UNION ALL
    SELECT
        (
            SELECT min(j.agent_id) FROM jobs AS j
            WHERE j.state = 'queued' AND j.model = :model AND j.agent_id > o.agent_id
        ),
        o.counted + CASE WHEN o.agent_id = :agent_id THEN 0 ELSE min(
            own.ahead + (a.last_served < own.last_served OR (a.last_served = own.last_served AND a.id < :agent_id)),
            (SELECT count(*) FROM (
                SELECT 1 FROM jobs AS j
                WHERE j.state = 'queued' AND j.model = :model AND j.agent_id = o.agent_id
                LIMIT 0 + :most
            ) AS theirs)
        ) END
    FROM others AS o CROSS JOIN own INNER JOIN agents AS a ON a.id = o.agent_id
    WHERE own.ahead + o.counted < :most
)
SELECT
    1 + own.ahead + (SELECT max(counted) FROM others) AS position,
    (SELECT paused_at_us FROM queue_control WHERE id = 1) AS paused_at_us
FROM own;

-- name: find_run_time(model, width, height, steps, reference_count)^
-- What such a run takes: measured for such jobs, else over all of that model, whose row has zeros.
SELECT coalesce(
    (
        SELECT mean_s FROM run_times
        WHERE model = :model AND width = :width AND height = :height
            AND steps = :steps AND reference_count = :reference_count
    ),
    (
        SELECT mean_s FROM run_times
        WHERE model = :model AND width = 0 AND height = 0 AND steps = 0 AND reference_count = 0
    )
) AS mean_s;

-- name: put_run_time(model, width, height, steps, reference_count, run_s)!
-- A moving average over about the last ten runs.
INSERT INTO run_times (model, width, height, steps, reference_count, runs, mean_s)
VALUES (:model, :width, :height, :steps, :reference_count, 1, :run_s)
ON CONFLICT (model, width, height, steps, reference_count) DO UPDATE SET
    mean_s = run_times.mean_s + (excluded.mean_s - run_times.mean_s) / min(run_times.runs + 1, 10),
    runs = run_times.runs + 1;

-- name: find_output(filename)^
-- The picture behind a public name.
SELECT o.*, a.session_id FROM outputs AS o INNER JOIN agents AS a ON a.id = o.agent_id
WHERE o.filename = :filename;

-- name: find_replay(agent_id, idempotency_key, now_us)^
-- The first answer to a request of this key, while it is kept.
SELECT body_sha256, answer FROM replays
WHERE agent_id = :agent_id AND idempotency_key = :idempotency_key AND expires_at_us > :now_us;

-- name: put_replay(agent_id, idempotency_key, body_sha256, answer, now_us, expires_at_us)!
-- Takes the place of one that has expired.
INSERT INTO replays (agent_id, idempotency_key, body_sha256, answer, created_at_us, expires_at_us)
VALUES (:agent_id, :idempotency_key, :body_sha256, :answer, :now_us, :expires_at_us)
ON CONFLICT (agent_id, idempotency_key) DO UPDATE SET
    body_sha256 = excluded.body_sha256, answer = excluded.answer,
    created_at_us = excluded.created_at_us, expires_at_us = excluded.expires_at_us
WHERE replays.expires_at_us <= excluded.created_at_us;

-- name: cancel_queued(id, now_us, expires_at_us)^
UPDATE jobs SET state = 'cancelled', finished_at_us = :now_us, expires_at_us = :expires_at_us
WHERE id = :id AND state = 'queued'
RETURNING id;

-- name: request_cancel(id, now_us)^
-- From here on the job cannot complete; its worker ends it before the next step.
UPDATE jobs SET cancel_requested_at_us = coalesce(cancel_requested_at_us, :now_us)
WHERE id = :id AND state = 'running'
RETURNING id;

-- name: is_output_pinned(id)^
SELECT EXISTS (SELECT 1 FROM job_references WHERE output_id = :id);

-- name: delete_ended_job(id)^
-- Its events go with it.
DELETE FROM jobs WHERE id = :id AND state IN ('completed', 'failed', 'cancelled')
RETURNING output_id;

-- name: delete_output(id)^
DELETE FROM outputs WHERE id = :id RETURNING disk_name;
