"""Two indexes of jobs less: each costs every job a page of the log, and what they found others find as well."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Leave an agent's unfinished jobs to the index by agent and state, overdue ones to that by model and time."""
    op.execute("DROP INDEX jobs_active")
    op.execute("DROP INDEX jobs_queue_until")
