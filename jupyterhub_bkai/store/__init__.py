"""Tables and short transactions: SQLite by default, PostgreSQL by address."""
