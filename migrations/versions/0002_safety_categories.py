"""Which categories of blocked keywords are not checked for an agent."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Names separated by spaces; none for everyone so far."""
    op.execute("ALTER TABLE agents ADD COLUMN safety_off TEXT NOT NULL DEFAULT ''")
