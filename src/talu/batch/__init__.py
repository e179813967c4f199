"""Answers files of requests with the models of this process, or those behind endpoints."""
