"""Queue control: whether jobs are claimed and accepted; and the trace that a job is part of."""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    # One row. Paused: workers claim nothing, what is posted waits. Draining: nothing more is accepted, what is
    # queued is still worked off. Null is the ordinary state of each.
    """
    CREATE TABLE queue_control (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        paused_at_us BIGINT,
        draining_at_us BIGINT
    )
    """,
    "INSERT INTO queue_control (id) VALUES (1)",
    # A W3C traceparent, where the request came in a trace: the worker's spans go on from it.
    "ALTER TABLE jobs ADD COLUMN traceparent TEXT",
)


def upgrade() -> None:
    """Add the table with its row, and the column."""
    for statement in STATEMENTS:
        op.execute(statement)
