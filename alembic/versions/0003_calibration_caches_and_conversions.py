"""Calibration caches, the sweeps that take their ranges from one, and conversions

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "calibrations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("info", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibrations")),
        sa.UniqueConstraint("sha256", name=op.f("uq_calibrations_sha256")),
    )
    op.create_table(
        "conversions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("cache_id", sa.String(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("problem_code", sa.String(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["cache_id"], ["calibrations.id"], name=op.f("fk_conversions_cache_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_conversions_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversions")),
    )
    with op.batch_alter_table("conversions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_conversions_cache_id"), ["cache_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_conversions_model_id"), ["model_id"], unique=False)

    op.create_table(
        "conversion_files",
        sa.Column("conversion_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversion_id"],
            ["conversions.id"],
            name=op.f("fk_conversion_files_conversion_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversion_id", "name", name=op.f("pk_conversion_files")),
    )
    # not in a batch: on SQLite that makes the table anew, and dropping the old one would take the rows of its sweeps
    # (units, layers, files) with it. Both databases read this statement
    op.execute(
        "ALTER TABLE sweeps ADD COLUMN cache_id VARCHAR CONSTRAINT fk_sweeps_cache_id REFERENCES calibrations (id)"
    )
    op.create_index(op.f("ix_sweeps_cache_id"), "sweeps", ["cache_id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_sweeps_cache_id"), table_name="sweeps")
    # in a batch, which env.py makes safe by now: a later migration has made the column's reference one of the table
    with op.batch_alter_table("sweeps", schema=None) as batch_op:
        batch_op.drop_column("cache_id")

    op.drop_table("conversion_files")
    with op.batch_alter_table("conversions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_conversions_model_id"))
        batch_op.drop_index(batch_op.f("ix_conversions_cache_id"))

    op.drop_table("conversions")
    op.drop_table("calibrations")
