-- What has changed, in order. Rows come from triggers on jobs and go with their job.

-- name: newest_event()^
SELECT coalesce(max(id), 0) AS id FROM events;

-- name: list_changes(after, most)
-- Changes behind one that was seen, oldest first.
SELECT id, job_id FROM events WHERE id > :after ORDER BY id LIMIT 0 + :most;

-- name: last_event(job_id)^
-- The newest change of one job.
SELECT id, kind FROM events WHERE job_id = :job_id ORDER BY id DESC LIMIT 1;
