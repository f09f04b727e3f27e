-- :jobs completed jobs of the first agent that have expired, with pictures in the store but not on the disk.

WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :jobs)
INSERT INTO outputs (agent_id, filename, disk_name, width, height, bytes, sha256, created_at_us, expires_at_us)
SELECT :first, printf('umrgen_%s_%d.png', :mark, n), printf('expired-%s-%d.png', :mark, n), 64, 64, 1000,
    printf('%064x', n), 1, 1
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :jobs)
INSERT INTO jobs (
    id, agent_id, state, model, prompt, negative, width, height, steps, seed, reference_names, ignored,
    request_id, created_at_us, queue_boot_id, queue_until_boot_ms, started_at_us, finished_at_us, expires_at_us,
    attempts, fence, output_id, timings
)
SELECT
    printf('ext_expired-%s-%d', :mark, n), :first, 'completed', :model, 'a red circle', '', 64, 64, 4, n, '[]', '[]',
    'benchmark', 1, :boot_id, :later_ms, 1, 1, 1, 1, 1,
    (SELECT id FROM outputs WHERE disk_name = printf('expired-%s-%d.png', :mark, n)), '{"total": 0.1}'
FROM numbers;
