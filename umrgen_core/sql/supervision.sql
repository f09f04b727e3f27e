-- For the line that a process tells systemd about itself.

-- name: count_work(most)^
-- What runs and what waits, each counted no further than `most`, and whether the owner has shut the queue. The bound
-- on the lease, which every running job has, is there to make SQLite take their index.
SELECT
    (SELECT count(*) FROM (
        SELECT 1 FROM jobs WHERE state = 'running' AND lease_until_boot_ms >= 0 LIMIT 0 + :most
    ) AS running) AS running,
    (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 0 + :most) AS queued) AS queued,
    q.paused_at_us, q.draining_at_us
FROM queue_control AS q;
