"""How often a job cost the service its device, and which model's oldest job has waited longest."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """The index gives the oldest waiting job of a model in one probe."""
    op.execute("ALTER TABLE jobs ADD COLUMN device_losses INTEGER NOT NULL DEFAULT 0 CHECK (device_losses >= 0)")
    op.execute("CREATE INDEX jobs_queued_model ON jobs (model, queue_until_boot_ms) WHERE state = 'queued'")
