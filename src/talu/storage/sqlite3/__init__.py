"""Chats in a single SQLite file."""
