"""Runs the scripts on the connection that `libs.common.sql` hands over."""

from alembic import context

from services.auth.store.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
