"""What alembic runs for every migration: in the transaction that `migrating.py` began and commits."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
