"""Alembic's entry point: runs the migrations in the transaction that `catalog.migrate` opened."""

from alembic import context

from adaptry.storage.catalog.rows import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
