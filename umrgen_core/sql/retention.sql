-- What has expired, and what is on disk without a row.

-- name: list_expired_jobs(now_us, most)
-- Ended jobs past their time whose picture no live job names.
SELECT j.id FROM jobs AS j
WHERE j.expires_at_us <= :now_us AND NOT EXISTS (
    SELECT 1 FROM job_references AS p WHERE p.output_id = j.output_id
)
ORDER BY j.expires_at_us
LIMIT :most;

-- name: list_expired_references(now_us, most)
SELECT r.id FROM "references" AS r
WHERE r.expires_at_us <= :now_us AND NOT EXISTS (
    SELECT 1 FROM job_references AS p WHERE p.reference_id = r.id
)
ORDER BY r.expires_at_us
LIMIT :most;

-- name: delete_expired_replays(now_us, most)!
DELETE FROM replays WHERE (agent_id, idempotency_key) IN (
    SELECT agent_id, idempotency_key FROM replays WHERE expires_at_us <= :now_us LIMIT :most
);

-- name: find_expired(now_us)^
-- Whether a round of the sweep has anything to write.
SELECT
    EXISTS (SELECT 1 FROM jobs WHERE expires_at_us <= :now_us)
    OR EXISTS (SELECT 1 FROM "references" WHERE expires_at_us <= :now_us)
    OR EXISTS (SELECT 1 FROM replays WHERE expires_at_us <= :now_us) AS found;

-- name: count_expired(now_us, most)^
-- How much a sweep would find, counted no further than `most`.
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE expires_at_us <= :now_us LIMIT :most) AS j) AS jobs,
    (SELECT count(*) FROM (SELECT 1 FROM "references" WHERE expires_at_us <= :now_us LIMIT :most) AS r) AS uploads,
    (SELECT count(*) FROM (SELECT 1 FROM replays WHERE expires_at_us <= :now_us LIMIT :most) AS p) AS replays;

-- name: find_output_file(disk_name)^
SELECT disk_name, sha256 FROM outputs WHERE disk_name = :disk_name;

-- name: find_reference_file(disk_name)^
SELECT disk_name, sha256 FROM "references" WHERE disk_name = :disk_name;

-- name: find_claim(id, fence)^
-- Whether a worker still holds the job under this fence: its picture may get a row yet.
SELECT 1 FROM jobs WHERE id = :id AND fence = :fence AND state = 'running';

-- name: next_output_file(after)^
-- Walks all outputs, for the scrub.
SELECT id, disk_name, sha256 FROM outputs WHERE id > :after ORDER BY id LIMIT 1;

-- name: next_reference_file(after)^
SELECT id, disk_name, sha256 FROM "references" WHERE id > :after ORDER BY id LIMIT 1;
