-- What became of the jobs of a period, read in slices of the primary key, so that no read holds the log up for long.

-- name: tally_bounds()^
SELECT (SELECT min(seq) FROM jobs) AS first, (SELECT max(seq) FROM jobs) AS last;

-- name: tally_next(seq)^
-- The job at a place in the order of acceptance, or the next behind it.
SELECT seq, created_at_us FROM jobs WHERE seq >= :seq ORDER BY seq LIMIT 1;

-- name: tally_slice(first, last, hour_us)
SELECT state, model, agent_id, error_code, finished_at_us / :hour_us AS hour, count(*) AS jobs
FROM jobs
WHERE seq BETWEEN :first AND :last
GROUP BY 1, 2, 3, 4, 5;

-- name: tally_timings(first, last, every)
-- The stages of one completed job in every so many.
SELECT model, timings FROM jobs
WHERE seq BETWEEN :first AND :last AND state = 'completed' AND seq % :every = 0;

-- name: tally_agents()
SELECT id, name FROM agents;
