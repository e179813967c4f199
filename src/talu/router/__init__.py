"""Model references, where models run, and opening them."""

from talu.config import GenerationConfig, SamplingParams
from talu.router.router import Router
from talu.router.spec import (
    BackendSpec,
    CompletionOptions,
    LocalBackend,
    ModelInput,
    ModelSpec,
    OpenAICompatibleBackend,
)

__all__ = [
    "BackendSpec",
    "CompletionOptions",
    "GenerationConfig",
    "LocalBackend",
    "ModelInput",
    "ModelSpec",
    "OpenAICompatibleBackend",
    "Router",
    "SamplingParams",
]
