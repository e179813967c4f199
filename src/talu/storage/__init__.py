"""The store of a profile: sessions and their items in a database."""
