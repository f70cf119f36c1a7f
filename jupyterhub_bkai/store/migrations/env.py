"""Run by alembic inside the connection that `store.database.migrate` hands over."""

from alembic import context

from jupyterhub_bkai.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
