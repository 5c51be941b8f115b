"""What operators say of results."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("result_id", sa.BigInteger, nullable=False, index=True),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("created", sa.String(24), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("marks", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("takes_back", sa.BigInteger, nullable=True, unique=True),
    )
