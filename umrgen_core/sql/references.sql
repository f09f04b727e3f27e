-- Uploaded images.

-- name: find_upload(agent_id, source_sha256)^
-- The agent's earlier upload of the same bytes.
SELECT r.*, a.session_id FROM "references" AS r INNER JOIN agents AS a ON a.id = r.agent_id
WHERE r.agent_id = :agent_id AND r.source_sha256 = :source_sha256;

-- name: find_reference(filename)^
-- The upload behind a public name, whoever's it is.
SELECT r.*, a.session_id FROM "references" AS r INNER JOIN agents AS a ON a.id = r.agent_id
WHERE r.filename = :filename;

-- name: insert_reference(agent_id, filename, disk_name, format, width, height, bytes, sha256, source_sha256, source_width, source_height, source_bytes, source_format, now_us, expires_at_us)!
INSERT INTO "references" (
    agent_id, filename, disk_name, format, width, height, bytes, sha256,
    source_sha256, source_width, source_height, source_bytes, source_format, created_at_us, expires_at_us
) VALUES (
    :agent_id, :filename, :disk_name, :format, :width, :height, :bytes, :sha256,
    :source_sha256, :source_width, :source_height, :source_bytes, :source_format, :now_us, :expires_at_us
);

-- name: replace_file(id, disk_name, bytes, sha256, expires_at_us)!
-- The file was lost and has been made again under a new name on disk.
UPDATE "references" SET disk_name = :disk_name, bytes = :bytes, sha256 = :sha256, expires_at_us = :expires_at_us
WHERE id = :id;

-- name: renew_reference(id, expires_at_us)!
UPDATE "references" SET expires_at_us = max(expires_at_us, :expires_at_us) WHERE id = :id;

-- name: list_references(agent_id, now_us)
SELECT r.*, a.session_id FROM "references" AS r INNER JOIN agents AS a ON a.id = r.agent_id
WHERE r.agent_id = :agent_id AND r.expires_at_us > :now_us
ORDER BY r.id DESC;

-- name: is_reference_pinned(id)^
SELECT EXISTS (SELECT 1 FROM job_references WHERE reference_id = :id);

-- name: delete_reference(id)^
DELETE FROM "references" WHERE id = :id RETURNING disk_name;
