"""Selections that lists are measured for

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATES = sa.table(
    "selections",
    sa.column("state", sa.String),
    sa.column("created_at", sa.Double),
    sa.column("finished_at", sa.Double),
)


def upgrade() -> None:
    """Apply."""
    # the defaults are for the rows that are there
    op.add_column("selections", sa.Column("round", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("selections", sa.Column("cancel_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("selections", sa.Column("problem_code", sa.String(), nullable=True))
    op.add_column("selections", sa.Column("problem", sa.String(), nullable=True))
    op.add_column("selections", sa.Column("started_at", sa.Double(), nullable=True))
    op.add_column("selections", sa.Column("finished_at", sa.Double(), nullable=True))
    done = STATES.update().where(STATES.c.state == "verified")
    op.execute(done.values(state="done", finished_at=STATES.c.created_at))


def downgrade() -> None:
    """Take back. What was being measured is a prediction again."""
    op.execute(sa.text("DELETE FROM work_units WHERE subject_id IN (SELECT id FROM selections)"))
    op.execute(STATES.update().where(STATES.c.state == "done").values(state="verified"))
    op.execute(STATES.update().where(STATES.c.state != "verified").values(state="predicted"))
    for name in ("finished_at", "started_at", "problem", "problem_code", "cancel_requested", "round"):
        op.drop_column("selections", name)
