-- Jobs of every agent, for the owner of the box. None of these reads a prompt. Each walks an index, newest first.

-- name: operator_jobs(before, look, state, model, most)
-- Of the newest `look` jobs those of a state and a model, each null for any.
SELECT
    j.seq, j.id, a.name AS agent, j.state, j.model, j.width, j.height, j.steps, j.step, j.reference_names,
    j.created_at_us, j.started_at_us, j.finished_at_us, j.attempts, j.worker_id, j.error_code, j.cancel_requested_at_us
FROM (SELECT seq FROM jobs WHERE seq < :before ORDER BY seq DESC LIMIT :look) AS newest
INNER JOIN jobs AS j ON j.seq = newest.seq
INNER JOIN agents AS a ON a.id = j.agent_id
WHERE (:state IS NULL OR j.state = :state) AND (:model IS NULL OR j.model = :model)
ORDER BY newest.seq DESC
LIMIT :most;

-- name: operator_jobs_of_agent(agent_id, before, look, state, model, most)
-- The same of one agent.
SELECT
    j.seq, j.id, a.name AS agent, j.state, j.model, j.width, j.height, j.steps, j.step, j.reference_names,
    j.created_at_us, j.started_at_us, j.finished_at_us, j.attempts, j.worker_id, j.error_code, j.cancel_requested_at_us
FROM (
    SELECT seq FROM jobs WHERE agent_id = :agent_id AND seq < :before ORDER BY seq DESC LIMIT :look
) AS newest
INNER JOIN jobs AS j ON j.seq = newest.seq
INNER JOIN agents AS a ON a.id = j.agent_id
WHERE (:state IS NULL OR j.state = :state) AND (:model IS NULL OR j.model = :model)
ORDER BY newest.seq DESC
LIMIT :most;

-- name: operator_jobs_in_state(agent_id, state, before, model, most)
-- Jobs of a state, however long ago they were posted: the newest of each agent, or of one, by an index that begins
-- with agent and state. A model is looked for among the whole state, so ask for one only where that is short.
SELECT
    j.seq, j.id, a.name AS agent, j.state, j.model, j.width, j.height, j.steps, j.step, j.reference_names,
    j.created_at_us, j.started_at_us, j.finished_at_us, j.attempts, j.worker_id, j.error_code, j.cancel_requested_at_us
FROM agents AS a
INNER JOIN jobs AS j ON j.seq IN (
    SELECT own.seq FROM jobs AS own
    WHERE own.agent_id = a.id AND own.state = :state AND own.seq < :before AND (:model IS NULL OR own.model = :model)
    ORDER BY own.seq DESC
    LIMIT :most
)
WHERE :agent_id IS NULL OR a.id = :agent_id
ORDER BY j.seq DESC
LIMIT :most;

-- name: operator_agent(agent_id)^
SELECT id, name, session_id FROM agents WHERE id = :agent_id;

-- name: operator_events(job_id)
SELECT id, kind FROM events WHERE job_id = :job_id ORDER BY id;

-- name: operator_webhook(job_id)^
-- What became of telling the agent of a job's end.
SELECT state, attempts, outcome FROM webhooks WHERE job_id = :job_id;
