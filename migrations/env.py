"""Alembic's entry: every step in one transaction, with the version repeated for umrgen_core.schema."""

from alembic import context

from umrgen_core.migrate import alembic_connection, head_version

with alembic_connection(context.config.attributes["database"]) as connection:
    context.configure(connection=connection, transactional_ddl=True, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()
        connection.exec_driver_sql(f"PRAGMA user_version={head_version()}")
