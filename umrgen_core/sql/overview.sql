-- The owner's look at the whole service. Each statement reads a bounded number of rows, however many jobs there are.

-- name: overview_running(most)
-- What workers hold, the longest held first. Walks the few running rows: the bound on the lease, which every one of
-- them has, is there to make SQLite take their index.
SELECT
    j.id, j.model, j.worker_id, j.step, j.steps, j.width, j.height, j.attempts, j.started_at_us,
    j.cancel_requested_at_us, j.lease_boot_id, j.lease_until_boot_ms, a.name AS agent
FROM jobs AS j
INNER JOIN agents AS a ON a.id = j.agent_id
WHERE j.state = 'running' AND j.lease_until_boot_ms >= 0
ORDER BY j.started_at_us, j.seq
LIMIT :most;

-- name: overview_queue(most)
-- What waits, by model: counted over no more than `most` queued jobs. The lowest seq came first.
SELECT q.model, q.jobs, q.agents, oldest.id AS oldest_id, oldest.created_at_us
FROM (
    SELECT waiting.model, count(*) AS jobs, count(DISTINCT waiting.agent_id) AS agents, min(waiting.seq) AS seq
    FROM (SELECT model, agent_id, seq FROM jobs WHERE state = 'queued' LIMIT :most) AS waiting
    GROUP BY waiting.model
) AS q
INNER JOIN jobs AS oldest ON oldest.seq = q.seq
ORDER BY q.jobs DESC, q.model;

-- name: overview_finished(most)
-- What ended last. A job is kept for one and the same time after its end, so the last to expire ended last.
SELECT
    j.id, j.model, j.state, j.width, j.height, j.steps, j.attempts, j.created_at_us, j.started_at_us,
    j.finished_at_us, j.error_code, a.name AS agent
FROM (
    SELECT seq, expires_at_us FROM jobs WHERE expires_at_us IS NOT NULL ORDER BY expires_at_us DESC LIMIT :most
) AS last
INNER JOIN jobs AS j ON j.seq = last.seq
INNER JOIN agents AS a ON a.id = j.agent_id
ORDER BY last.expires_at_us DESC, last.seq DESC;

-- name: overview_ended(since_us, bucket_us, most)
-- How many jobs expire in each stretch of time from `since_us` on: read from the index alone.
SELECT (ended.expires_at_us - :since_us) / :bucket_us AS bucket, count(*) AS jobs
FROM (
    SELECT expires_at_us FROM jobs WHERE expires_at_us >= :since_us ORDER BY expires_at_us DESC LIMIT :most
) AS ended
GROUP BY 1;

-- name: overview_usage()^
-- What all agents keep, from the counters that triggers hold.
SELECT
    count(*) AS agents, coalesce(sum(used_references), 0) AS reference_count,
    coalesce(sum(used_reference_bytes), 0) AS reference_bytes, coalesce(sum(used_output_bytes), 0) AS output_bytes
FROM agents;

-- name: overview_webhooks(most)^
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state = 'due' LIMIT :most) AS due) AS due,
    (SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state = 'failed' LIMIT :most) AS failed) AS failed;
