"""Chats in a PostgreSQL database, for several servers; needs ``pip install "talu[postgres]"``."""
