"""Results say how far two statistics of the model disagreed on them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("results", sa.Column("disagreement", sa.Float(53), nullable=True))
