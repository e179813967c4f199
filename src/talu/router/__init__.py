"""Parses model references and opens the backends of models."""

from talu.config import GenerationConfig
from talu.router.router import Router
from talu.router.spec import (
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
    "BackendSpec",
    "Capabilities",
    "CompletionOptions",
    "GenerationConfig",
    "LocalBackend",
    "ModelInput",
    "ModelSpec",
    "ModelTarget",
    "OpenAICompatibleBackend",
    "Router",
    "SamplingParams",
    "StopFlag",
]
