"""What accepted images are like belongs to the version of the model that accepted them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # Of which version those there are nobody knows, perhaps of one that saw images at another size: learned anew.
    op.execute(sa.table("camera_references").delete())
    op.add_column("camera_references", sa.Column("model_version", sa.String(64), nullable=False, server_default=""))
    op.create_index("ix_camera_references_version", "camera_references", ["model", "model_version", "id"])
