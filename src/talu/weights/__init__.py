"""Checkpoints: where they lie, what is in them, and how they are packed."""
