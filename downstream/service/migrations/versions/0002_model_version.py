"""Results say which version of a model judged."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("results", sa.Column("model_version", sa.String(64), nullable=False, server_default=""))
    # heldout 0.1 reads this number and nothing of alembic: by it, it refuses what it would write half of.
    settings = sa.table("settings", sa.column("name"), sa.column("value"))
    op.execute(settings.delete().where(settings.c.name == "format"))
    op.execute(settings.insert().values(name="format", value="3"))
