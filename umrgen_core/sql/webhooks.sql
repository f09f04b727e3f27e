-- What agents have yet to be told. Rows come from a trigger on jobs and go with their job.

-- name: list_webhook_agents(now_boot_ms)
-- Agents that something is due for. One index probe for each agent that has any row waiting.
WITH RECURSIVE waiting (agent_id) AS (
    SELECT min(agent_id) FROM webhooks WHERE state = 'due'
    UNION ALL
    SELECT (SELECT min(w.agent_id) FROM webhooks AS w WHERE w.state = 'due' AND w.agent_id > waiting.agent_id)
    FROM waiting WHERE waiting.agent_id IS NOT NULL
),
heads (agent_id, due_boot_ms) AS (
    SELECT waiting.agent_id, (
        SELECT min(w.due_boot_ms) FROM webhooks AS w WHERE w.state = 'due' AND w.agent_id = waiting.agent_id
    )
    FROM waiting WHERE waiting.agent_id IS NOT NULL
)
SELECT agent_id FROM heads WHERE due_boot_ms <= :now_boot_ms ORDER BY due_boot_ms;

-- name: list_due_webhooks(agent_id, now_boot_ms, most)
SELECT job_id FROM webhooks
WHERE state = 'due' AND agent_id = :agent_id AND due_boot_ms <= :now_boot_ms
ORDER BY due_boot_ms
LIMIT :most;

-- name: claim_webhook(job_id, boot_id, lease_until_boot_ms)^
-- An attempt begins: the row falls due again when the lease is over.
UPDATE webhooks SET
    attempts = attempts + 1, fence = fence + 1, due_boot_id = :boot_id, due_boot_ms = :lease_until_boot_ms
WHERE job_id = :job_id AND state = 'due'
RETURNING attempts, fence;

-- name: get_webhook_agent(agent_id)^
SELECT session_id, webhook_version, webhook_rotated_at_us FROM agents WHERE id = :agent_id;

-- name: retry_webhook(job_id, fence, boot_id, due_boot_ms, now_us, outcome)^
UPDATE webhooks SET
    due_boot_id = :boot_id, due_boot_ms = :due_boot_ms, tried_at_us = :now_us, outcome = :outcome
WHERE job_id = :job_id AND state = 'due' AND fence = :fence
RETURNING job_id;

-- name: end_webhook(job_id, fence, state, now_us, outcome)^
UPDATE webhooks SET state = :state, tried_at_us = :now_us, outcome = :outcome
WHERE job_id = :job_id AND state = 'due' AND fence = :fence
RETURNING job_id;

-- name: find_foreign_webhook(boot_id)^
SELECT 1 FROM webhooks WHERE state = 'due' AND due_boot_id NOT IN ('', :boot_id) LIMIT 1;

-- name: restart_webhooks(boot_id)!
-- After a reboot nobody knows how long the machine was off: what waited is due.
UPDATE webhooks SET due_boot_id = '', due_boot_ms = 0
WHERE state = 'due' AND due_boot_id NOT IN ('', :boot_id);

-- name: list_webhooks(state, most)
-- Newest first; of one state, or of all where it is null.
SELECT w.*, j.state AS job_state, j.callback_url, a.name AS agent_name
FROM webhooks AS w
INNER JOIN jobs AS j ON j.id = w.job_id
INNER JOIN agents AS a ON a.id = w.agent_id
WHERE :state IS NULL OR w.state = :state
ORDER BY w.seq DESC
LIMIT :most;

-- name: replay_webhook(job_id)^
-- Due at once, with every attempt before it. One that is under way has no say any more in what becomes of the row.
UPDATE webhooks SET state = 'due', attempts = 0, fence = fence + 1, due_boot_id = '', due_boot_ms = 0
WHERE job_id = :job_id
RETURNING job_id;

-- name: replay_failed_webhooks()
UPDATE webhooks SET state = 'due', attempts = 0, fence = fence + 1, due_boot_id = '', due_boot_ms = 0
WHERE state = 'failed'
RETURNING job_id;

-- name: raise_webhook_version(id, now_us)!
UPDATE agents SET webhook_version = webhook_version + 1, webhook_rotated_at_us = :now_us WHERE id = :id;
