"""Results say how far an image as a whole lies from the nearest good one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("results", sa.Column("distance", sa.Float(53), nullable=True))
