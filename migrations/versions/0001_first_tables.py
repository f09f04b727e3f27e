"""The first tables: agents, keys, jobs, references, outputs, workers, and what later promises rest on.

Units are in the names: `_us` is wall time in microseconds since 1970 (display and retention only),
`_boot_ms` is CLOCK_BOOTTIME in milliseconds and means nothing without the boot id beside it.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    # last_served is a counter, not a time: fair order must survive a clock that jumps.
    # used_* repeat what the rows of "references" and outputs add up to; triggers below keep them.
    """
    CREATE TABLE agents (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        session_id TEXT NOT NULL UNIQUE CHECK (session_id LIKE 'sid\\_ext\\_%' ESCAPE '\\'),
        created_at_us BIGINT NOT NULL,
        last_served BIGINT NOT NULL DEFAULT 0,
        concurrent_jobs INTEGER CHECK (concurrent_jobs >= 0),
        rate_per_minute INTEGER CHECK (rate_per_minute >= 0),
        reads_per_minute INTEGER CHECK (reads_per_minute >= 0),
        reference_limit INTEGER CHECK (reference_limit >= 0),
        reference_bytes_limit BIGINT CHECK (reference_bytes_limit >= 0),
        output_bytes_limit BIGINT CHECK (output_bytes_limit >= 0),
        used_references INTEGER NOT NULL DEFAULT 0 CHECK (used_references >= 0),
        used_reference_bytes BIGINT NOT NULL DEFAULT 0 CHECK (used_reference_bytes >= 0),
        used_output_bytes BIGINT NOT NULL DEFAULT 0 CHECK (used_output_bytes >= 0)
    )
    """,
    """
    CREATE TABLE api_keys (
        id INTEGER PRIMARY KEY,
        agent_id INTEGER NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64),
        scopes TEXT NOT NULL DEFAULT 'upload generate read',
        created_at_us BIGINT NOT NULL,
        expires_at_us BIGINT,
        revoked_at_us BIGINT,
        concurrent_jobs INTEGER CHECK (concurrent_jobs >= 0),
        rate_per_minute INTEGER CHECK (rate_per_minute >= 0),
        reads_per_minute INTEGER CHECK (reads_per_minute >= 0),
        reference_limit INTEGER CHECK (reference_limit >= 0),
        reference_bytes_limit BIGINT CHECK (reference_bytes_limit >= 0),
        output_bytes_limit BIGINT CHECK (output_bytes_limit >= 0)
    )
    """,
    # disk_name is random for each row: unlinking an expired row's file never hits a newer upload.
    """
    CREATE TABLE "references" (
        id INTEGER PRIMARY KEY,
        agent_id INTEGER NOT NULL REFERENCES agents (id),
        filename TEXT NOT NULL UNIQUE,
        disk_name TEXT NOT NULL UNIQUE,
        format TEXT NOT NULL CHECK (format IN ('jpeg', 'png', 'webp')),
        width INTEGER NOT NULL CHECK (width > 0),
        height INTEGER NOT NULL CHECK (height > 0),
        bytes BIGINT NOT NULL CHECK (bytes > 0),
        sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
        source_sha256 TEXT NOT NULL CHECK (length(source_sha256) = 64),
        source_width INTEGER NOT NULL,
        source_height INTEGER NOT NULL,
        source_bytes BIGINT NOT NULL,
        source_format TEXT NOT NULL,
        created_at_us BIGINT NOT NULL,
        expires_at_us BIGINT NOT NULL,
        UNIQUE (agent_id, source_sha256)
    )
    """,
    """
    CREATE TABLE outputs (
        id INTEGER PRIMARY KEY,
        agent_id INTEGER NOT NULL REFERENCES agents (id),
        filename TEXT NOT NULL UNIQUE,
        disk_name TEXT NOT NULL UNIQUE,
        width INTEGER NOT NULL CHECK (width > 0),
        height INTEGER NOT NULL CHECK (height > 0),
        bytes BIGINT NOT NULL CHECK (bytes > 0),
        sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
        created_at_us BIGINT NOT NULL,
        expires_at_us BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        agent_id INTEGER NOT NULL REFERENCES agents (id),
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
        model TEXT NOT NULL,
        prompt TEXT NOT NULL,
        negative TEXT NOT NULL,
        width INTEGER NOT NULL CHECK (width BETWEEN 64 AND 2048),
        height INTEGER NOT NULL CHECK (height BETWEEN 64 AND 2048),
        steps INTEGER NOT NULL CHECK (steps BETWEEN 1 AND 50),
        seed BIGINT NOT NULL CHECK (seed BETWEEN 0 AND 9007199254740991),
        reference_names TEXT NOT NULL,
        ignored TEXT NOT NULL,
        request_id TEXT NOT NULL,
        created_at_us BIGINT NOT NULL,
        queue_boot_id TEXT NOT NULL,
        queue_until_boot_ms BIGINT NOT NULL,
        started_at_us BIGINT,
        finished_at_us BIGINT,
        expires_at_us BIGINT,
        attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        fence INTEGER NOT NULL DEFAULT 0 CHECK (fence >= attempts),
        worker_id TEXT,
        lease_boot_id TEXT,
        lease_until_boot_ms BIGINT,
        cancel_requested_at_us BIGINT,
        step INTEGER NOT NULL DEFAULT 0 CHECK (step >= 0),
        output_id INTEGER UNIQUE REFERENCES outputs (id),
        timings TEXT,
        error_code TEXT,
        error TEXT,
        retryable INTEGER CHECK (retryable IN (0, 1)),
        CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at_us IS NOT NULL)),
        CHECK ((finished_at_us IS NULL) = (expires_at_us IS NULL)),
        CHECK ((state = 'completed') = (output_id IS NOT NULL)),
        CHECK (state <> 'completed' OR timings IS NOT NULL),
        CHECK ((state = 'failed') = (error_code IS NOT NULL)),
        CHECK (state <> 'failed' OR (error IS NOT NULL AND retryable IS NOT NULL)),
        CHECK ((state = 'running') = (lease_until_boot_ms IS NOT NULL)),
        CHECK (state <> 'running' OR (
            fence > 0 AND worker_id IS NOT NULL AND lease_boot_id IS NOT NULL AND started_at_us IS NOT NULL
        )),
        CHECK (state <> 'completed' OR cancel_requested_at_us IS NULL)
    )
    """,
    # A row here is a pin: it exists while its job is queued or running, and RESTRICT does the rest.
    """
    CREATE TABLE job_references (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        position INTEGER NOT NULL CHECK (position >= 0),
        reference_id INTEGER REFERENCES "references" (id) ON DELETE RESTRICT,
        output_id INTEGER REFERENCES outputs (id) ON DELETE RESTRICT,
        PRIMARY KEY (job_id, position),
        CHECK ((reference_id IS NULL) <> (output_id IS NULL))
    )
    """,
    """
    CREATE TABLE workers (
        id TEXT PRIMARY KEY,
        pid INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('loading', 'ready', 'stopping')),
        models TEXT NOT NULL,
        started_at_us BIGINT NOT NULL,
        seen_at_us BIGINT NOT NULL,
        seen_boot_id TEXT NOT NULL,
        seen_boot_ms BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        created_at_us BIGINT NOT NULL
    )
    """,
    # A replay record outlives its job: no foreign key to jobs.
    """
    CREATE TABLE replays (
        agent_id INTEGER NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
        idempotency_key TEXT NOT NULL,
        body_sha256 TEXT NOT NULL CHECK (length(body_sha256) = 64),
        answer TEXT NOT NULL,
        created_at_us BIGINT NOT NULL,
        expires_at_us BIGINT NOT NULL,
        PRIMARY KEY (agent_id, idempotency_key)
    )
    """,
    # Moving averages of what runs took, the ground of every estimate that an agent is given.
    """
    CREATE TABLE run_times (
        model TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        reference_count INTEGER NOT NULL,
        runs INTEGER NOT NULL CHECK (runs > 0),
        mean_s REAL NOT NULL CHECK (mean_s >= 0),
        PRIMARY KEY (model, width, height, steps, reference_count)
    )
    """,
)

INDEXES = (
    "CREATE INDEX jobs_queued ON jobs (model, agent_id, seq) WHERE state = 'queued'",
    "CREATE INDEX jobs_queue_until ON jobs (queue_until_boot_ms) WHERE state = 'queued'",
    "CREATE INDEX jobs_lease_until ON jobs (lease_until_boot_ms) WHERE state = 'running'",
    "CREATE INDEX jobs_active ON jobs (agent_id, seq) WHERE state IN ('queued', 'running')",
    "CREATE INDEX jobs_agent ON jobs (agent_id, seq)",
    "CREATE INDEX jobs_agent_state ON jobs (agent_id, state, seq)",
    "CREATE INDEX jobs_expiry ON jobs (expires_at_us) WHERE expires_at_us IS NOT NULL",
    "CREATE INDEX agents_last_served ON agents (last_served)",
    'CREATE INDEX references_expiry ON "references" (expires_at_us)',
    'CREATE INDEX references_agent ON "references" (agent_id, id)',
    "CREATE INDEX job_references_reference ON job_references (reference_id)",
    "CREATE INDEX job_references_output ON job_references (output_id)",
    "CREATE INDEX events_job ON events (job_id, id)",
    "CREATE INDEX replays_expiry ON replays (expires_at_us)",
)

USAGE = (
    """
    CREATE TRIGGER references_added AFTER INSERT ON "references" BEGIN
        UPDATE agents SET used_references = used_references + 1,
            used_reference_bytes = used_reference_bytes + new.bytes WHERE id = new.agent_id;
    END
    """,
    """
    CREATE TRIGGER references_changed AFTER UPDATE OF bytes ON "references" BEGIN
        UPDATE agents SET used_reference_bytes = used_reference_bytes - old.bytes + new.bytes
            WHERE id = new.agent_id;
    END
    """,
    """
    CREATE TRIGGER references_removed AFTER DELETE ON "references" BEGIN
        UPDATE agents SET used_references = used_references - 1,
            used_reference_bytes = used_reference_bytes - old.bytes WHERE id = old.agent_id;
    END
    """,
    """
    CREATE TRIGGER outputs_added AFTER INSERT ON outputs BEGIN
        UPDATE agents SET used_output_bytes = used_output_bytes + new.bytes WHERE id = new.agent_id;
    END
    """,
    """
    CREATE TRIGGER outputs_removed AFTER DELETE ON outputs BEGIN
        UPDATE agents SET used_output_bytes = used_output_bytes - old.bytes WHERE id = old.agent_id;
    END
    """,
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*TABLES, *INDEXES, *USAGE):
        op.execute(statement)
