-- A store of :jobs jobs. Of each ten one waits, one has failed, eight are completed; ten after ten goes to one agent.

WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :jobs)
INSERT INTO outputs (id, agent_id, filename, disk_name, width, height, bytes, sha256, created_at_us, expires_at_us)
SELECT n, :first + n / 10 % :agents, printf('umrgen_%024d.png', n), printf('output-%d.png', n), 64, 64, 1000,
    printf('%064x', n), 1, :later_us
FROM numbers WHERE n % 10 > 1;

-- The ids are spread as random ones are: their index must not be better packed than in a store that has grown.
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :jobs),
kinds (n, state) AS (
    SELECT n, CASE n % 10 WHEN 0 THEN 'queued' WHEN 1 THEN 'failed' ELSE 'completed' END FROM numbers
)
INSERT INTO jobs (
    seq, id, agent_id, state, model, prompt, negative, width, height, steps, seed, reference_names, ignored,
    request_id, created_at_us, queue_boot_id, queue_until_boot_ms, started_at_us, finished_at_us, expires_at_us,
    attempts, fence, output_id, timings, error_code, error, retryable
)
SELECT
    n, printf('ext_%08x-0000-4000-8000-%012x', n * 2654435761 % 4294967296, n), :first + n / 10 % :agents, state,
    :model, 'a red circle on a white background', '', 64, 64, 4, n, '[]', '[]',
    'benchmark', 1, :boot_id, :later_ms,
    iif(state = 'queued', NULL, 1), iif(state = 'queued', NULL, 1), iif(state = 'queued', NULL, :later_us),
    state <> 'queued', state <> 'queued',
    iif(state = 'completed', n, NULL), iif(state = 'completed', '{"total": 0.1}', NULL),
    iif(state = 'failed', 'model_error', NULL), iif(state = 'failed', 'It failed.', NULL),
    iif(state = 'failed', 0, NULL)
FROM kinds;
