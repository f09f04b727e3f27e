"""One index of jobs less: each costs every job a page of the log, and what this one found another finds as well."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Leave an agent's unfinished jobs to the index by agent and state."""
    op.execute("DROP INDEX jobs_active")
