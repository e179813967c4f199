"""Talk to language models, in this process or behind an endpoint, through one API."""

__version__ = "0.1.0"
