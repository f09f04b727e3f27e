-- The one row that says whether jobs are claimed and accepted. Claiming reads it in find_next, accepting in its
-- own transaction, so that neither ever acts on a state that is over.

-- name: get_queue_control()^
SELECT paused_at_us, draining_at_us FROM queue_control WHERE id = 1;

-- name: pause_queue(now_us)^
-- A queue that is paused already keeps the time of its first pause.
UPDATE queue_control SET paused_at_us = coalesce(paused_at_us, :now_us) WHERE id = 1
RETURNING paused_at_us, draining_at_us;

-- name: drain_queue(now_us)^
UPDATE queue_control SET draining_at_us = coalesce(draining_at_us, :now_us) WHERE id = 1
RETURNING paused_at_us, draining_at_us;

-- name: resume_queue()^
-- Back to the ordinary state, whatever it was.
UPDATE queue_control SET paused_at_us = NULL, draining_at_us = NULL WHERE id = 1
RETURNING paused_at_us, draining_at_us;

-- name: list_waiting_agents(most)
-- Whose jobs wait, counted over no more than `most` queued jobs, the longest queue first. The lowest seq came first.
SELECT a.name AS agent, q.jobs, oldest.id AS oldest_id, oldest.created_at_us AS oldest_at_us
FROM (
    SELECT waiting.agent_id, count(*) AS jobs, min(waiting.seq) AS seq
    FROM (SELECT agent_id, seq FROM jobs WHERE state = 'queued' LIMIT :most) AS waiting
    GROUP BY waiting.agent_id
) AS q
INNER JOIN jobs AS oldest ON oldest.seq = q.seq
INNER JOIN agents AS a ON a.id = q.agent_id
ORDER BY q.jobs DESC, a.name;
