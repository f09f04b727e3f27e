-- Agents and their keys.

-- name: insert_agent(name, session_id, now_us)^
-- A new agent; nothing when its name or session is taken.
INSERT INTO agents (name, session_id, created_at_us)
VALUES (:name, :session_id, :now_us)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_agent(session_id)^
SELECT id FROM agents WHERE session_id = :session_id;

-- name: put_key(agent_id, name, sha256, scopes, now_us, expires_at_us)!
-- A key, or the same key made good again.
INSERT INTO api_keys (agent_id, name, sha256, scopes, created_at_us, expires_at_us)
VALUES (:agent_id, :name, :sha256, :scopes, :now_us, :expires_at_us)
ON CONFLICT (sha256) DO UPDATE SET revoked_at_us = NULL, expires_at_us = excluded.expires_at_us;

-- name: revoke_other_keys(agent_id, name, sha256, now_us)!
-- Ends every key of this name but one.
UPDATE api_keys SET revoked_at_us = :now_us
WHERE agent_id = :agent_id AND name = :name AND sha256 <> :sha256 AND revoked_at_us IS NULL;

-- name: find_key(sha256)^
-- A key with its agent's limits beside its own; who asks compares expiry and revocation.
SELECT
    k.id AS key_id, k.name AS key_name, k.scopes, k.expires_at_us, k.revoked_at_us, k.sha256,
    a.id AS agent_id, a.name AS agent_name, a.session_id, a.safety_off,
    a.concurrent_jobs, a.rate_per_minute, a.reads_per_minute,
    a.reference_limit, a.reference_bytes_limit, a.output_bytes_limit,
    k.concurrent_jobs AS key_concurrent_jobs, k.rate_per_minute AS key_rate_per_minute,
    k.reads_per_minute AS key_reads_per_minute, k.reference_limit AS key_reference_limit,
    k.reference_bytes_limit AS key_reference_bytes_limit, k.output_bytes_limit AS key_output_bytes_limit
FROM api_keys AS k
INNER JOIN agents AS a ON a.id = k.agent_id
WHERE k.sha256 = :sha256;

-- name: find_key_by_id(id)^
-- The same for a key that is known by its number.
SELECT
    k.id AS key_id, k.name AS key_name, k.scopes, k.expires_at_us, k.revoked_at_us, k.sha256,
    a.id AS agent_id, a.name AS agent_name, a.session_id, a.safety_off,
    a.concurrent_jobs, a.rate_per_minute, a.reads_per_minute,
    a.reference_limit, a.reference_bytes_limit, a.output_bytes_limit,
    k.concurrent_jobs AS key_concurrent_jobs, k.rate_per_minute AS key_rate_per_minute,
    k.reads_per_minute AS key_reads_per_minute, k.reference_limit AS key_reference_limit,
    k.reference_bytes_limit AS key_reference_bytes_limit, k.output_bytes_limit AS key_output_bytes_limit
FROM api_keys AS k
INNER JOIN agents AS a ON a.id = k.agent_id
WHERE k.id = :id;

-- name: get_usage(agent_id)^
SELECT used_references, used_reference_bytes, used_output_bytes FROM agents WHERE id = :agent_id;

-- name: get_agent(name)^
SELECT * FROM agents WHERE name = :name;

-- name: list_agents(now_us)
SELECT a.*, (
    SELECT count(*) FROM api_keys AS k
    WHERE k.agent_id = a.id AND k.revoked_at_us IS NULL AND (k.expires_at_us IS NULL OR k.expires_at_us > :now_us)
) AS live_keys
FROM agents AS a ORDER BY a.name;

-- name: set_agent_limits(id, concurrent_jobs, rate_per_minute, reads_per_minute, reference_limit, reference_bytes_limit, output_bytes_limit)!
UPDATE agents SET
    concurrent_jobs = :concurrent_jobs, rate_per_minute = :rate_per_minute, reads_per_minute = :reads_per_minute,
    reference_limit = :reference_limit, reference_bytes_limit = :reference_bytes_limit,
    output_bytes_limit = :output_bytes_limit
WHERE id = :id;

-- name: set_safety_off(id, safety_off)!
UPDATE agents SET safety_off = :safety_off WHERE id = :id;

-- name: set_key_limits(id, concurrent_jobs, rate_per_minute, reads_per_minute, reference_limit, reference_bytes_limit, output_bytes_limit)!
UPDATE api_keys SET
    concurrent_jobs = :concurrent_jobs, rate_per_minute = :rate_per_minute, reads_per_minute = :reads_per_minute,
    reference_limit = :reference_limit, reference_bytes_limit = :reference_bytes_limit,
    output_bytes_limit = :output_bytes_limit
WHERE id = :id;

-- name: insert_key(agent_id, name, sha256, scopes, now_us, expires_at_us)^
INSERT INTO api_keys (agent_id, name, sha256, scopes, created_at_us, expires_at_us)
VALUES (:agent_id, :name, :sha256, :scopes, :now_us, :expires_at_us)
RETURNING id;

-- name: get_key(id)^
SELECT k.*, a.name AS agent_name FROM api_keys AS k INNER JOIN agents AS a ON a.id = k.agent_id WHERE k.id = :id;

-- name: list_keys()
SELECT k.*, a.name AS agent_name FROM api_keys AS k INNER JOIN agents AS a ON a.id = k.agent_id ORDER BY a.name, k.id;

-- name: revoke_key(id, now_us)^
UPDATE api_keys SET revoked_at_us = coalesce(revoked_at_us, :now_us) WHERE id = :id RETURNING id;

-- name: expire_key(id, expires_at_us)!
-- Brings an expiry forward, never back.
UPDATE api_keys SET expires_at_us = min(coalesce(expires_at_us, :expires_at_us), :expires_at_us) WHERE id = :id;
