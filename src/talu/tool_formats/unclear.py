"""Defines the reason why a template does not say how calls are written."""

__all__ = ["Unclear"]


class Unclear(Exception):
    """The renderings of a template do not say how calls are written."""
