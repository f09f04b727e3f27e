-- The state of the service for its metrics. Each statement but the last reads a bounded number of rows, however many
-- jobs there are.

-- name: monitor_queue(most)
-- What waits, by model, and when the first of it would be given up, which tells since when it waits. No more than
-- `most` queued jobs are counted, from the index alone.
SELECT model, count(*) AS jobs, min(queue_until_boot_ms) AS queue_until_boot_ms
FROM (SELECT model, queue_until_boot_ms FROM jobs WHERE state = 'queued' LIMIT :most) AS waiting
GROUP BY model;

-- name: monitor_running()^
-- The bound on the lease, which every running job has, is there to make SQLite take their index.
SELECT count(*) AS jobs FROM jobs WHERE state = 'running' AND lease_until_boot_ms >= 0;

-- name: monitor_workers()
SELECT state, seen_boot_id, seen_boot_ms FROM workers;

-- name: monitor_control()^
SELECT paused_at_us, draining_at_us FROM queue_control WHERE id = 1;

-- name: monitor_webhooks(most)^
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state = 'due' LIMIT :most) AS due) AS due,
    (SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state = 'failed' LIMIT :most) AS failed) AS failed;

-- name: monitor_device_losses(newest)^
-- Runs that took the device down, among the newest jobs: a process that ends cannot tell of it.
SELECT coalesce(sum(device_losses), 0) AS losses
FROM (SELECT device_losses FROM jobs ORDER BY seq DESC LIMIT :newest) AS recent;

-- name: monitor_states()
-- Reads one index whole, so it is asked seldom: see JobCount.
SELECT state, count(*) AS jobs FROM jobs GROUP BY state;
