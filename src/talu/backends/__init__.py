"""Provides the backends that produce answers."""
