"""What a decision rests on, and the selections that are asked of it again

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    # not in a batch: on SQLite that makes the table anew, and the rows that belong to its sweeps would go with the old
    op.add_column("sweeps", sa.Column("evidence", sa.JSON(), nullable=True))
    op.create_table(
        "selections",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_selections_sweep_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selections")),
    )
    op.create_index(op.f("ix_selections_sweep_id"), "selections", ["sweep_id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_selections_sweep_id"), table_name="selections")
    op.drop_table("selections")
    op.drop_column("sweeps", "evidence")
