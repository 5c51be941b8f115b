"""Results say how far an image as a whole lies from the nearest good one."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("results", sa.Column("distance", sa.Float(53), nullable=True))
    op.drop_index("ix_results_scores", "results")
    op.create_index("ix_results_scores", "results", ["model", "model_version", "camera", "id", "score", "distance"])
