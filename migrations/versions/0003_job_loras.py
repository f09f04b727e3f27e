"""The LoRAs that a job names, and how it was painted."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """`loras` is a JSON array of {"name", "strength"}, `ran_with` a JSON object."""
    op.execute("ALTER TABLE jobs ADD COLUMN loras TEXT NOT NULL DEFAULT '[]'")
    op.execute("ALTER TABLE jobs ADD COLUMN ran_with TEXT")
