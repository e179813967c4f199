"""``talu describe``: describes a model on this machine without loading its weights."""

from dataclasses import asdict

import click

from talu.cli.answer import write_json
from talu.cli.completion import complete_model
from talu.cli.terminal import counted, visible
from talu.cli.text import NOT_EMPTY
from talu.descriptions import ModelDescription
from talu.error_text import size_text
from talu.router.description import describe

__all__ = ["command"]


@click.command(name="describe")
@click.argument("model", type=NOT_EMPTY, shell_complete=complete_model)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Tokens that the memory is computed for; all that the model was trained for if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str, context: int | None, as_json: bool) -> None:
    """Describe a model: architecture, formats, chat template, memory.

    MODEL is a folder, a GGUF file, or a hub id in the cache. Its weights are not loaded.
    """
    about = describe(model, context=context)
    if as_json:
        write_json({"model": model} | asdict(about))
        return
    lines = _lines(about)
    width = max(len(name) for name, _ in lines)
    click.echo(visible(model))
    for name, text in lines:
        click.echo(f"  {name:{width}}  {visible(text)}")
    for note in about.notes:
        click.echo(f"talu: {visible(note)}", err=True)
    if about.problem is not None:
        raise click.ClickException(f"The model cannot run: {visible(about.problem)}")


def _lines(about: ModelDescription) -> list[tuple[str, str]]:
    able = about.capabilities
    abilities = {
        "chat": able.streaming,
        "embeddings": able.embeddings,
        "reranking": able.reranking,
        "tools": able.tool_calling,
    }
    lines = [
        ("architecture", f"{about.model_type}, {about.layers} layers of width {about.hidden_size}"),
        ("parameters", _amount(about.parameters)),
        ("context", counted(about.context_length, "token")),
        ("vocabulary", counted(about.vocabulary_size, "token")),
        *(
            (
                "formats" if number == 0 else "",
                f"{each.name}: {counted(each.tensors, 'tensor')}, {_amount(each.parameters)}, "
                f"{size_text(each.bytes)}",
            )
            for number, each in enumerate(about.formats)
        ),
        ("", f"{about.bits_per_weight:.2f} bits per weight"),
        ("chat template", _template(about)),
        ("can do", ", ".join(name for name, can in abilities.items() if can) or "nothing"),
        ("licence", about.licence or "not stated in the files"),
    ]
    return lines if about.memory is None else [*lines, *_memory(about)]


def _template(about: ModelDescription) -> str:
    if about.template is None:
        return "none"
    shown = {
        "system messages": about.template.system,
        "tools": about.template.tools,
        "thinking": about.template.thinking,
    }
    return ", ".join(f"{name}: {'yes' if shows else 'no'}" for name, shows in shown.items())


def _memory(about: ModelDescription) -> list[tuple[str, str]]:
    memory = about.memory
    assert memory is not None
    need = (
        f"{size_text(memory.weights)} of weights, {size_text(memory.cache)} of cache for "
        f"{counted(memory.context, 'token')}"
    )
    if memory.fits:
        verdict = f"yes, {size_text(memory.free)} are free"
    elif memory.usable_context:
        most = counted(memory.usable_context, "token")
        verdict = f"not with this context: {size_text(memory.free)} are free, enough for {most}"
    else:
        verdict = f"no, {size_text(memory.free)} are free"
    return [("memory", need), ("fits here", verdict)]


def _amount(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:,.{2 if unit == 'B' else 1}f} {unit}"
    return str(number)
