"""Finds, opens and packs checkpoints."""
