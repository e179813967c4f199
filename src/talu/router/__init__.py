"""Parses model references and opens the backends of models."""

from talu.config import GenerationConfig
from talu.router.discovery import (
    RemoteModelInfo,
    check_endpoint,
    get_model_ids,
    list_endpoint_models,
)
from talu.router.router import Router
from talu.router.spec import (
    AnthropicBackend,
    BackendSpec,
    CompletionOptions,
    ModelInput,
    ModelSpec,
    ModelTarget,
    OpenAICompatibleBackend,
)
from talu.sampling import SamplingParams
from talu.types import Capabilities, LocalBackend, StopFlag

__all__ = [
    "AnthropicBackend",
    "BackendSpec",
    "Capabilities",
    "CompletionOptions",
    "GenerationConfig",
    "LocalBackend",
    "ModelInput",
    "ModelSpec",
    "ModelTarget",
    "OpenAICompatibleBackend",
    "RemoteModelInfo",
    "Router",
    "SamplingParams",
    "StopFlag",
    "check_endpoint",
    "get_model_ids",
    "list_endpoint_models",
]
