"""Units know their trace; the installation says which protocol it speaks, and when it last collected garbage

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("work_units", sa.Column("trace", sa.String(), nullable=True))
    table = op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("protocol", sa.Integer(), nullable=True),
        sa.Column("collected_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.bulk_insert(table, [{"id": 1, "version": None, "protocol": None, "collected_at": 0.0}])


def downgrade() -> None:
    """Take back."""
    op.drop_table("installation")
    op.drop_column("work_units", "trace")
