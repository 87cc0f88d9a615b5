"""API keys, projects that own every row, and the audit log

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OWNED = ("models", "datasets", "calibrations", "conversions", "sweeps", "selections")
# what was unique in the whole installation, and is unique in a project from here on
UNIQUE = {
    "models": ("sha256",),
    "datasets": ("sha256", "preprocessing_key"),
    "calibrations": ("sha256",),
    "sweeps": ("idempotency_key",),
}


def upgrade() -> None:
    """Apply."""
    _create_projects()
    _create_keys()
    _create_audit_log()
    for table in OWNED:
        # on SQLite this makes the table anew, which env.py has made safe: it switches foreign keys off
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("project_id", sa.String(), server_default="default", nullable=False))
            batch_op.create_foreign_key(op.f(f"fk_{table}_project_id"), "projects", ["project_id"], ["id"])
            if table in UNIQUE:
                batch_op.drop_constraint(op.f(_unique_name(table, UNIQUE[table])), type_="unique")
                now_unique = ("project_id", *UNIQUE[table])
                batch_op.create_unique_constraint(op.f(_unique_name(table, now_unique)), list(now_unique))


def downgrade() -> None:
    """Take back; refused while a project beside the default one owns something."""
    for table in OWNED:
        foreign = sa.text(f"select count(*) from {table} where project_id <> 'default'")
        if op.get_bind().scalar(foreign):
            raise RuntimeError(f"{table} of other projects than 'default' are left; delete them before going back")
    for table in reversed(OWNED):
        with op.batch_alter_table(table, schema=None) as batch_op:
            if table in UNIQUE:
                now_unique = ("project_id", *UNIQUE[table])
                batch_op.drop_constraint(op.f(_unique_name(table, now_unique)), type_="unique")
                batch_op.create_unique_constraint(op.f(_unique_name(table, UNIQUE[table])), list(UNIQUE[table]))
            batch_op.drop_constraint(op.f(f"fk_{table}_project_id"), type_="foreignkey")
            batch_op.drop_column("project_id")
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("drop function audit_log_is_append_only()")
    op.drop_table("api_keys")
    op.drop_table("projects")


def _unique_name(table: str, columns: tuple[str, ...]) -> str:
    return f"uq_{table}_{'_'.join(columns)}"


def _create_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("max_open_sweeps", sa.Integer(), nullable=True),
        sa.Column("max_queued_units", sa.Integer(), nullable=True),
        sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    clock = {
        "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
        "postgresql": "extract(epoch from clock_timestamp())",
    }[op.get_bind().dialect.name]
    op.execute(f"insert into projects (id, created_at) values ('default', {clock})")


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("tokens", sa.Double(), nullable=True),
        sa.Column("refilled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_api_keys_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_created_at_id"), "audit_log", ["created_at", "id"], unique=False)
    # append only: not even a mistake of ours changes what stands there
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("update", "delete"):
            op.execute(
                f"create trigger audit_log_no_{verb} before {verb} on audit_log "
                "begin select raise(abort, 'the audit log is append only'); end"
            )
        return
    op.execute(
        "create function audit_log_is_append_only() returns trigger language plpgsql as "
        "$$ begin raise exception 'the audit log is append only'; end $$"
    )
    op.execute(
        "create trigger audit_log_append_only before update or delete or truncate on audit_log "
        "for each statement execute function audit_log_is_append_only()"
    )
