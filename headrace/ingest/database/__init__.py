"""Database sources: PostgreSQL and SQLite behind one interface, read in one transaction."""
