"""Where chats are kept: sessions and their items in one SQLite file."""
