"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("ord", sa.BigInteger(), nullable=False),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("server", sa.String(length=255), nullable=False),
        sa.Column("hub_groups", sa.Text(), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("group_name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("wish", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("keepalive_s", sa.Integer(), nullable=True),
        sa.Column("remove_server", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("ord"),
    )
    op.create_index("requests_by_user", "requests", ["user_name", "asked_ms"], unique=False)
    op.create_index(
        "requests_live",
        "requests",
        ["user_name", "server"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued','granted','pulling','starting','running','stopping')"),
        postgresql_where=sa.text("state IN ('queued','granted','pulling','starting','running','stopping')"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("granted_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=True),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=True),
        sa.Column("released_ms", sa.BigInteger(), nullable=True),
        sa.Column("handle", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["id"],
            ["requests.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "transitions",
        sa.Column(
            "n", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("request", sa.String(length=26), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=True),
        sa.Column("target", sa.String(length=16), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request"],
            ["requests.id"],
        ),
        sa.PrimaryKeyConstraint("n"),
    )
    op.create_index("transitions_by_request", "transitions", ["request", "n"], unique=False)
    op.create_table(
        "intervals",
        sa.Column("lease", sa.String(length=26), nullable=False),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("project", sa.String(length=255), nullable=True),
        sa.Column("group_name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("gpu_memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("share", sa.String(length=32), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("opened_boot_ns", sa.BigInteger(), nullable=False),
        sa.Column("boot_id", sa.String(length=36), nullable=False),
        sa.Column("closed_ms", sa.BigInteger(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("measured_kib", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["lease"],
            ["leases.id"],
        ),
        sa.PrimaryKeyConstraint("lease"),
    )
    op.create_index("intervals_by_time", "intervals", ["opened_ms"], unique=False)
    op.create_table(
        "slices",
        sa.Column("lease", sa.String(length=26), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("device_index", sa.Integer(), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("share", sa.String(length=32), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("sm_milli", sa.BigInteger(), nullable=False),
        sa.Column("mig_profile", sa.String(length=64), nullable=True),
        sa.Column("mig_start", sa.Integer(), nullable=True),
        sa.Column("mig_size", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["lease"],
            ["leases.id"],
        ),
        sa.PrimaryKeyConstraint("lease", "device"),
    )
    op.create_index("slices_by_device", "slices", ["device"], unique=False)


def downgrade() -> None:
    for table in ("intervals", "transitions", "slices", "leases", "requests"):
        op.drop_table(table)
