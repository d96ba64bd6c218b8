"""The online stores: SQLite, PostgreSQL and Redis behind one interface."""
