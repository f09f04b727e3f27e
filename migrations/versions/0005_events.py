"""Events: a row for every change of a job that its agent may see, written by the change itself."""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    # Nothing was ever written to the first table of this name.
    "DROP TABLE events",
    # AUTOINCREMENT: an id is never given twice, so that a stream can be resumed behind any of them.
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        kind TEXT NOT NULL CHECK (kind IN ('state', 'progress', 'done'))
    )
    """,
    "CREATE INDEX events_job ON events (job_id, id)",
    """
    CREATE TRIGGER jobs_begun AFTER INSERT ON jobs
    BEGIN INSERT INTO events (job_id, kind) VALUES (new.id, 'state'); END
    """,
    """
    CREATE TRIGGER jobs_changed AFTER UPDATE OF state, step, cancel_requested_at_us ON jobs
    WHEN new.state <> old.state OR new.step <> old.step
        OR (new.cancel_requested_at_us IS NULL) <> (old.cancel_requested_at_us IS NULL)
    BEGIN
        INSERT INTO events (job_id, kind) VALUES (new.id, CASE
            WHEN new.state IN ('completed', 'failed', 'cancelled') THEN 'done'
            WHEN new.state = old.state AND new.step <> old.step THEN 'progress'
            ELSE 'state'
        END);
    END
    """,
    # A stream of a job that ended before there were events still has an end.
    """
    INSERT INTO events (job_id, kind)
    SELECT id, CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN 'done' ELSE 'state' END
    FROM jobs ORDER BY seq
    """,
)


def upgrade() -> None:
    """Make the table anew, and the triggers that fill it."""
    for statement in STATEMENTS:
        op.execute(statement)
