"""Describes the form that an answer must have, checks answers, and reads them as values."""
