"""Webhooks: where an agent wants to be told, and a row for every end of a job that has yet to be told."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    "ALTER TABLE jobs ADD COLUMN callback_url TEXT",
    # An agent's signing secret is derived from its version; for a while after a change the one before signs too.
    "ALTER TABLE agents ADD COLUMN webhook_version INTEGER NOT NULL DEFAULT 1 CHECK (webhook_version >= 1)",
    "ALTER TABLE agents ADD COLUMN webhook_rotated_at_us BIGINT",
    # One row for each job that ends, as it ends once. due_boot_ms is when to try next; a claim moves it to the end of
    # its lease, so what its claimant never finishes falls due again. 0 is at once, whatever the boot.
    # The fence tells the claims of a row apart; it is never set back, not even by a replay.
    """
    CREATE TABLE webhooks (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id TEXT NOT NULL UNIQUE REFERENCES jobs (id) ON DELETE CASCADE,
        agent_id INTEGER NOT NULL REFERENCES agents (id),
        state TEXT NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'delivered', 'failed')),
        due_boot_id TEXT NOT NULL DEFAULT '',
        due_boot_ms BIGINT NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        fence INTEGER NOT NULL DEFAULT 0 CHECK (fence >= attempts),
        tried_at_us BIGINT,
        outcome TEXT
    )
    """,
    "CREATE INDEX webhooks_due ON webhooks (agent_id, due_boot_ms) WHERE state = 'due'",
    "CREATE INDEX webhooks_failed ON webhooks (seq) WHERE state = 'failed'",
    """
    CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON jobs
    WHEN new.callback_url IS NOT NULL
        AND new.state IN ('completed', 'failed', 'cancelled') AND old.state IN ('queued', 'running')
    BEGIN INSERT INTO webhooks (job_id, agent_id) VALUES (new.id, new.agent_id); END
    """,
)


def upgrade() -> None:
    """Add the columns, the table, and the trigger that fills it."""
    for statement in STATEMENTS:
        op.execute(statement)
