"""Knows how models write tool calls.

The chat template of a model shows it: ``derive`` renders the template with calls, and makes a
description. From that, ``Reader`` reads answers as they arrive, and ``calls_grammar`` writes the
grammar that constrains them.
"""
