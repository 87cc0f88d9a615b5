"""Results are found again by their content

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("work_units", schema=None) as batch_op:
        batch_op.add_column(sa.Column("content_key", sa.String(), nullable=True))
        batch_op.create_index(batch_op.f("ix_work_units_content_key"), ["content_key"], unique=False)


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("work_units", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_work_units_content_key"))
        batch_op.drop_column("content_key")
