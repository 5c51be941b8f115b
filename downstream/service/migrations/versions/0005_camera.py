"""What was wrong with the camera when an image came, and what accepted images are like."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("results", sa.Column("camera", sa.String(100), nullable=False, server_default=""))
    op.create_table(
        "camera_references",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("look", sa.Text, nullable=False),
    )
