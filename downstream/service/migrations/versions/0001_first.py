"""The tables of heldout 0.1, which made them without alembic: where they are, they stay as they are."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID_TYPE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "results",
        sa.Column("id", ID_TYPE, primary_key=True, autoincrement=True),
        sa.Column("created", sa.String(24), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("score", sa.Float(53), nullable=False),
        sa.Column("threshold", sa.Float(53), nullable=False),
        sa.Column("is_defective", sa.Boolean, nullable=False),
        sa.Column("confidence", sa.Float(53), nullable=False),
        sa.Column("regions", sa.Text, nullable=False),
        sa.Column("milliseconds", sa.Float(53), nullable=False),
        sa.Column("is_kept", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    for column in ("created", "digest"):
        op.create_index(f"ix_results_{column}", "results", [column], if_not_exists=True)
    op.create_table(
        "images",
        sa.Column("id", ID_TYPE, primary_key=True, autoincrement=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        if_not_exists=True,
    )
