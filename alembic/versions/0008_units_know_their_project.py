"""Units know their project and their weight, so that a claim finds whose turn it is

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OF_SWEEP = "UPDATE work_units SET project_id = (SELECT project_id FROM sweeps WHERE sweeps.id = work_units.sweep_id)"
OF_OTHERS = (
    "UPDATE work_units SET project_id = (SELECT project_id FROM {table} WHERE {table}.id = work_units.subject_id) "
    "WHERE subject_id IN (SELECT id FROM {table})"
)
TURN = ["state", "queue", "project_id", "subject_id", "created_at", "ordinal"]


def upgrade() -> None:
    """Apply."""
    # the defaults are for the rows that are there
    op.add_column("work_units", sa.Column("project_id", sa.String(), nullable=False, server_default="default"))
    op.add_column("work_units", sa.Column("weight", sa.Integer(), nullable=False, server_default="4"))
    op.execute(sa.text(f"{OF_SWEEP} WHERE sweep_id IS NOT NULL"))
    for table in ("models", "datasets", "conversions"):
        op.execute(sa.text(OF_OTHERS.format(table=table)))
    op.drop_index("ix_work_units_queue", "work_units")
    op.create_index("ix_work_units_turn", "work_units", TURN)
    op.create_index("ix_work_units_project_served", "work_units", ["queue", "project_id", "started_at"])
    op.create_index("ix_work_units_subject_served", "work_units", ["subject_id", "started_at"])


def downgrade() -> None:
    """Take back."""
    for name in ("subject_served", "project_served", "turn"):
        op.drop_index(f"ix_work_units_{name}", "work_units")
    op.create_index("ix_work_units_queue", "work_units", ["state", "queue", "created_at"])
    op.drop_column("work_units", "weight")
    op.drop_column("work_units", "project_id")
