"""Parses model references, opens the backends of models, and chooses between several models."""

from talu.config import GenerationConfig
from talu.router.discovery import (
    RemoteModelInfo,
    check_endpoint,
    get_model_ids,
    list_endpoint_models,
)
from talu.router.limits import Limits
from talu.router.policies import (
    ByCapability,
    Cheapest,
    Fallback,
    Fastest,
    First,
    LeastBusy,
    Policy,
    RoundRobin,
    Sticky,
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
from talu.router.status import RouterStatus, TargetStatus
from talu.sampling import SamplingParams
from talu.types import Attempt, Capabilities, LocalBackend, StopFlag

__all__ = [
    "AnthropicBackend",
    "Attempt",
    "BackendSpec",
    "ByCapability",
    "Capabilities",
    "Cheapest",
    "CompletionOptions",
    "Fallback",
    "Fastest",
    "First",
    "GenerationConfig",
    "LeastBusy",
    "Limits",
    "LocalBackend",
    "ModelInput",
    "ModelSpec",
    "ModelTarget",
    "OpenAICompatibleBackend",
    "Policy",
    "RemoteModelInfo",
    "RoundRobin",
    "Router",
    "RouterStatus",
    "SamplingParams",
    "Sticky",
    "StopFlag",
    "TargetStatus",
    "check_endpoint",
    "get_model_ids",
    "list_endpoint_models",
]
