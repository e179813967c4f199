"""Models behind an endpoint: OpenAI-compatible servers and Anthropic, through the official SDKs."""
