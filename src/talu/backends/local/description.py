"""Describes a model on this machine from its files, without loading its weights."""

from talu.backends.local.model import SETTINGS
from talu.descriptions import ModelDescription, TemplateFeatures
from talu.engine.description import describe_network
from talu.error_text import shown
from talu.exceptions import (
    ModelNotFoundError,
    TemplateError,
    TokenizerError,
)
from talu.sources import ModelSource, open_model
from talu.sources.resolve import split_tag
from talu.template.limits import template_time
from talu.template.render import traits
from talu.types import Capabilities, LocalBackend

__all__ = ["describe"]


def describe(ref: str, context: int | None, options: LocalBackend | None) -> ModelDescription:
    """Describe a model; see ``talu.router.description.describe``.

    Raises:
        ValidationError: the model was trained for a shorter context.
        ModelNotFoundError: there is no such model on this machine.
        ModelError: its files are damaged, or the architecture is not supported.
    """
    source, note = _open(ref)
    network = describe_network(source, context=context, options=options)
    architecture, formats = network.architecture, network.formats
    numbers = sum(each.parameters for each in formats)
    template, problems = _template(source)
    return ModelDescription(
        location=source.location,
        model_type=architecture.model_type,
        parameters=architecture.parameter_count,
        layers=architecture.layer_count,
        hidden_size=architecture.hidden_size,
        vocabulary_size=architecture.vocabulary_size,
        context_length=architecture.context_length,
        formats=formats,
        bits_per_weight=8 * sum(each.bytes for each in formats) / max(1, numbers),
        template=template,
        capabilities=Capabilities.of(
            SETTINGS,
            generates=architecture.generates,
            embeds=architecture.embeds,
            reranks=architecture.embedding.problem is None,
        ),
        licence=source.licence(),
        memory=network.memory,
        problem=network.problem,
        notes=(*([note] if note else []), *problems, *architecture.notes),
    )


def _open(ref: str) -> tuple[ModelSource, str | None]:
    try:
        return open_model(ref, offline=True)
    except ModelNotFoundError as error:
        if split_tag(ref) is None:
            raise
        raise ModelNotFoundError(
            f"the model {shown(ref)} is not complete in the hub's cache, and describing it "
            f"downloads nothing; get it with: talu get {shown(ref)[1:-1]}"
        ) from error


def _template(source: ModelSource) -> tuple[TemplateFeatures | None, list[str]]:
    """What the chat template shows, and why that is not known."""
    try:
        templates = source.chat_templates()
        text = templates.get("default") or next(iter(templates.values()), None)
        if text is None:
            return None, []
        with template_time():
            found = traits(text)
            features = TemplateFeatures(
                system=found.system_role,
                tools=found.tools,
                thinking="enable_thinking" in text or "<think>" in text,
            )
    except (TemplateError, TokenizerError) as error:
        return None, [f"the chat template cannot be used: {error}"]
    return features, []
