"""What is asked for again and again is found without reading every result."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

KEPT = sa.text("is_kept")


def upgrade() -> None:
    op.drop_index("ix_results_created", "results")  # those of the next one begin with it
    op.create_index("ix_results_day", "results", ["created", "model", "is_defective"])
    op.create_index("ix_results_page", "results", ["model", "id", "is_defective"])
    op.create_index("ix_results_scores", "results", ["model", "model_version", "camera", "id", "score"])
    op.create_index("ix_results_kept", "results", ["model", "model_version", "digest", "id"],
                    sqlite_where=KEPT, postgresql_where=KEPT)  # fmt: skip
    op.create_index("ix_audit_subject", "audit", ["subject", "number"])
