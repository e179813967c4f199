"""Defines the operations of networks, and the executors and samplers that run them."""
