"""SQLite finds kept images by their index too: it uses a partial one by the very words of a question alone."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    op.drop_index("ix_results_kept", "results")
    op.create_index("ix_results_kept", "results", ["model", "model_version", "digest", "id"],
                    sqlite_where=sa.text("is_kept = 1"))  # fmt: skip
