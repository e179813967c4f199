"""The store of a profile: sessions and their items in one SQLite file."""
