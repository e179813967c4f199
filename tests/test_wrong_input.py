"""Wrong input through the public API: a typed error that says what, where, and what to do."""

import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from talu import Chat, Client, CompletionOptions
from talu.chat import Hook
from talu.exceptions import (
    EmptyPromptError,
    GenerationError,
    ModelError,
    ModelNotFoundError,
    StateError,
    StructuredOutputError,
    TemplateError,
    TemplateSyntaxError,
    TokenizerError,
    ValidationError,
)
from talu.sources.resolve import BUNDLED_FOLDER

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A separate model folder, to damage."""
    return Path(copytree(BUNDLED_FOLDER, tmp_path / "model"))


@pytest.fixture(scope="module")
def client():
    """A valid model."""
    with Client("talu/pocket") as client:
        yield client


def change_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def change_header(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the header of the weights and leave the data as it is."""
    raw = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def lie(header: dict) -> None:
    name = next(name for name in header if name != "__metadata__")
    begin, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [begin, end + 1_000_000_000]


def reshape(header: dict) -> None:
    header["model.norm.weight"]["shape"] = [8, header["model.norm.weight"]["shape"][0] // 8]


def drop(header: dict) -> None:
    header["model.unknown.weight"] = header.pop("model.norm.weight")


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def break_template(folder: Path, source: str) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change_json(folder / "tokenizer_config.json", chat_template=source)


DAMAGES = {  # damage to a valid folder: (damage, error, code, words of the message)
    "missing config.json": (
        lambda f: (f / "config.json").unlink(),
        ModelError,
        "MODEL_ERROR",
        ["config.json"],
    ),
    "damaged config.json": (
        lambda f: (f / "config.json").write_text('{"model_type": '),
        ModelError,
        "MODEL_ERROR",
        ["config.json", "JSON"],
    ),
    "config.json that is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        ModelError,
        "MODEL_ERROR",
        ["config.json"],
    ),
    "unknown model_type": (
        lambda f: change_json(f / "config.json", model_type="qwen33"),
        ModelError,
        "MODEL_ERROR",
        ["qwen33", "did you mean", "qwen3", "llama", "config.json"],
    ),
    "no model_type": (
        lambda f: change_json(f / "config.json", model_type=None),
        ModelError,
        "MODEL_ERROR",
        ["model_type", "config.json"],
    ),
    "missing tensor": (
        lambda f: change_header(f, drop),
        ModelError,
        "MODEL_ERROR",
        ["model.norm.weight"],
    ),
    "tensor of a wrong shape": (
        lambda f: change_header(f, reshape),
        ModelError,
        "MODEL_ERROR",
        ["model.norm.weight", "shape", "192"],
    ),
    "truncated safetensors": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1000]),
        ModelError,
        "MODEL_ERROR",
        [WEIGHTS],
    ),
    "empty safetensors": (
        lambda f: (f / WEIGHTS).write_bytes(b""),
        ModelError,
        "MODEL_ERROR",
        [WEIGHTS],
    ),
    "header that lies about offsets": (
        lambda f: change_header(f, lie),
        ModelError,
        "MODEL_ERROR",
        [WEIGHTS],
    ),
    "pickle weights": (
        pickle_only,
        ModelError,
        "MODEL_ERROR",
        ["pytorch_model.bin", "safetensors"],
    ),
    "no weights": (
        lambda f: (f / WEIGHTS).unlink(),
        ModelError,
        "MODEL_ERROR",
        ["no weights", "safetensors"],
    ),
    "missing tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        TokenizerError,
        "TOKENIZER_ERROR",
        ["tokenizer.json"],
    ),
    "damaged tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{"),
        TokenizerError,
        "TOKENIZER_ERROR",
        ["tokenizer.json"],
    ),
    "template that is not Jinja": (
        lambda f: break_template(f, "{% for m in messages %}"),
        TemplateSyntaxError,
        "TEMPLATE_SYNTAX_ERROR",
        ["line 1"],
    ),
    "template that fails": (
        lambda f: break_template(f, "{{ raise_exception('no system role') }}"),
        TemplateError,
        "TEMPLATE_RAISE_EXCEPTION",
        ["no system role"],
    ),
    "template that reaches into Python": (
        lambda f: break_template(f, "{{ ''.__class__.__mro__ }}"),
        TemplateError,
        "TEMPLATE_RENDER_FAILED",
        ["__class__"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_named_with_file_and_fault(folder: Path, damage: str) -> None:
    spoil, error, code, words = DAMAGES[damage]
    spoil(folder)
    with Client(str(folder)) as client, pytest.raises(error) as caught:
        client.ask("Hi", max_tokens=1)
    message = str(caught.value)
    assert caught.value.code == code
    assert [word for word in words if word not in message] == []


class AsyncHook(Hook):
    async def on_generation_end(self, *_: object, **__: object) -> None:
        return None


def two_at_once(chat: Chat) -> None:
    with chat("Hi", max_tokens=50) as stream:
        reader = iter(stream)
        next(reader)
        chat.send("Hi", max_tokens=1)


ARGUMENTS = {  # a call on a valid model: (call, error, code, words of the message)
    "empty raw prompt": (
        lambda c: c.raw_complete(""),
        EmptyPromptError,
        "GENERATION_EMPTY_PROMPT",
        ["prompt is empty", "token"],
    ),
    "empty raw prompt of token ids": (
        lambda c: c.raw_complete("", completion_opts=CompletionOptions([])),
        EmptyPromptError,
        "GENERATION_EMPTY_PROMPT",
        ["prompt is empty", "token"],
    ),
    "prompt that is not a string": (
        lambda c: c.ask(None),
        ValidationError,
        "INVALID_ARGUMENT",
        ["None", "use text"],
    ),
    "prompt that is not valid Unicode": (
        lambda c: c.ask("a\ud800"),
        TokenizerError,
        "TOKENIZER_ERROR",
        ["surrogate", "errors='replace'"],
    ),
    "prompt longer than the context": (
        lambda c: c.ask("one " * 3000),
        GenerationError,
        "GENERATION_CONTEXT_OVERFLOW",
        ["3009", "1024", "shorten"],
    ),
    "raw prompt longer than the context": (
        lambda c: c.raw_complete("", completion_opts=CompletionOptions([5] * 2000)),
        GenerationError,
        "GENERATION_CONTEXT_OVERFLOW",
        ["2000", "1024"],
    ),
    "unknown generation parameter": (
        lambda c: c.ask("Hi", temprature=1),
        ValidationError,
        "INVALID_ARGUMENT",
        ["'temprature'", "did you mean 'temperature'"],
    ),
    "temperature below 0": (
        lambda c: c.ask("Hi", temperature=-1),
        ValidationError,
        "INVALID_ARGUMENT",
        ["temperature", "at least 0", "-1"],
    ),
    "temperature that no token could be sampled with": (
        lambda c: c.ask("Hi", temperature=1e31),
        ValidationError,
        "INVALID_ARGUMENT",
        ["temperature", "at most 1000", "1e+31"],
    ),
    "seed below 0": (
        lambda c: c.ask("Hi", seed=-1),
        ValidationError,
        "INVALID_ARGUMENT",
        ["seed", "at least 0", "-1"],
    ),
    "seed of a wrong type": (
        lambda c: c.ask("Hi", seed="lucky"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["seed", "whole number", "'lucky'"],
    ),
    "max_tokens of 0": (
        lambda c: c.ask("Hi", max_tokens=0),
        ValidationError,
        "INVALID_ARGUMENT",
        ["max_tokens", "at least 1"],
    ),
    "bias for a token that the model does not have": (
        lambda c: c.ask("Hi", logit_bias={10**6: 1.0}),
        ValidationError,
        "INVALID_ARGUMENT",
        ["logit_bias", "1000000", "0 to 2047"],
    ),
    "stop token that the model does not have": (
        lambda c: c.ask("Hi", stop_token_ids=[2048]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["stop_token_ids", "2048"],
    ),
    "form of an unknown kind": (
        lambda c: c.ask("Hi", response_format="name, age"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["response_format", "'name, age'", "JSON Schema"],
    ),
    "schema that is not valid": (
        lambda c: c.ask("Hi", response_format={"type": "strin"}),
        StructuredOutputError,
        "STRUCTURED_OUTPUT_ERROR",
        ["'#/type'", "'strin'"],
    ),
    "schema without values": (
        lambda c: c.ask("Hi", response_format={"type": "integer", "minimum": 2, "maximum": 1}),
        StructuredOutputError,
        "STRUCTURED_OUTPUT_ERROR",
        ["minimum is 2", "maximum is 1", "'#'"],
    ),
    "model that the client does not have": (
        lambda c: c.ask("Hi", model="talu/pokcet"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["'talu/pokcet'", "did you mean 'talu/pocket'"],
    ),
    "malformed messages": (
        lambda c: c.chat(messages=[{"role": "user", "content": "a"}, {"role": "usr"}]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["messages[1]['role']", "did you mean 'user'"],
    ),
    "messages that are not a list": (
        lambda c: c.chat(messages={"role": "user", "content": "a"}),
        ValidationError,
        "INVALID_ARGUMENT",
        ["messages must be a list of dictionaries"],
    ),
    "tool calls that are not a list": (
        lambda c: c.chat(messages=[{"role": "assistant", "content": "a", "tool_calls": 0}]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["messages[0]['tool_calls'] must be a list, got 0"],
    ),
    "reasoning that is not a string": (
        lambda c: c.chat(messages=[{"role": "assistant", "content": "a", "reasoning_content": 0}]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["messages[0]['reasoning_content'] must be text", "got 0"],
    ),
    "message with a role outside a list": (
        lambda c: c.ask({"role": "user", "content": "Hi"}),
        ValidationError,
        "INVALID_ARGUMENT",
        ["in a list", "client.chat(messages=[…])"],
    ),
    "list of lists": (
        lambda c: c.ask([["Hi"], ["Hello"]]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["a list in a list, ['Hi']", "flat"],
    ),
    "bytes": (
        lambda c: c.ask(b"Hi"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["b'Hi'", "decode"],
    ),
    "hooks that are a text": (
        lambda c: Client("talu/pocket", hooks=""),
        ValidationError,
        "INVALID_ARGUMENT",
        ["hooks must be a list of hooks, got ''"],
    ),
    "model that is bytes": (
        lambda c: Client(b"talu/pocket"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["a name, a path or a ModelSpec", "an object of type bytes"],
    ),
    "result of a tool that nobody called": (
        lambda c: c.chat(messages=[{"role": "tool", "content": "4", "tool_call_id": "x"}]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["messages[0]['tool_call_id']", "'x'"],
    ),
    "unknown role": (
        lambda c: c.chat().append("asistant", "a"),
        ValidationError,
        "VALIDATION_INVALID_ROLE",
        ["'asistant'", "system, user, assistant, developer"],
    ),
    "message without text": (
        lambda c: c.chat().append("user"),
        ValidationError,
        "VALIDATION_MISSING_CONTENT",
        ["content is missing"],
    ),
    "unknown marker": (
        lambda c: c.chat(marker="starred"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["marker", "'pinned'", "'archived'", "'deleted'", "'starred'"],
    ),
    "session id that is not a string": (
        lambda c: c.chat(session_id=7),
        ValidationError,
        "INVALID_ARGUMENT",
        ["session_id", "printable text", "7"],
    ),
    "several texts for a single embedding": (
        lambda c: c.embed(["Hello", "world"]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["text must be a str, got list", "embed_batch"],
    ),
    "token to continue from that is not a token id": (
        lambda c: c.raw_complete(
            "Hi", completion_opts=CompletionOptions(continue_from_token_id="5")
        ),
        ValidationError,
        "INVALID_ARGUMENT",
        ["continue_from_token_id must be a token id, a whole number", "'5'"],
    ),
    "system text of a raw completion that is not a string": (
        lambda c: c.raw_complete("Hi", system=[]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["system must be text, got []"],
    ),
    "system message that is not a string": (
        lambda c: c.chat(system=["You are a pirate."]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["system must be text"],
    ),
    "picture": (
        lambda c: c.ask([{"type": "image_url", "image_url": {"url": "a.png"}}]),
        ValidationError,
        "INVALID_ARGUMENT",
        ["'image_url'", "text only"],
    ),
    "unknown pooling": (
        lambda c: c.embed("a", pooling="max"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["Invalid pooling strategy 'max'", "'last', 'mean', 'first'"],
    ),
    "text in place of a list of texts": (
        lambda c: c.embed_batch("a"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["texts must be a list", "embed takes a single one"],
    ),
    "embedding with a model that the client does not have": (
        lambda c: c.embedding_dim("talu/pokcet"),
        ValidationError,
        "INVALID_ARGUMENT",
        ["did you mean 'talu/pocket'"],
    ),
    "something else in place of a hook": (
        lambda c: c.hooks.add(print),
        ValidationError,
        "INVALID_ARGUMENT",
        ["a hook must be an instance"],
    ),
    "async hook on a sync client": (
        lambda c: c.hooks.add(AsyncHook()),
        ValidationError,
        "INVALID_ARGUMENT",
        ["AsyncHook.on_generation_end", "AsyncClient", "plain function"],
    ),
    "async on_token on a sync client": (
        lambda c: c.chat().send("Hi", on_token=AsyncHook().on_generation_end, max_tokens=1),
        ValidationError,
        "INVALID_ARGUMENT",
        ["on_generation_end", "AsyncClient"],
    ),
    "stop flag of another kind": (
        lambda c: c.ask("Hi", stop_flag=threading.Event()),
        ValidationError,
        "INVALID_ARGUMENT",
        ["stop_flag must be a StopFlag"],
    ),
    "regenerating without a question": (
        lambda c: c.chat(system="S").regenerate(),
        StateError,
        "STATE_REGENERATE_NO_USER",
        ["no user message"],
    ),
    "dropping an item that is not there": (
        lambda c: c.chat().pop(),
        StateError,
        "STATE_POP_FAILED",
        ["no item"],
    ),
    "continuing a raw completion": (
        lambda c: c.raw_complete("a", max_tokens=1).append("b"),
        StateError,
        "STATE_NO_CHAT",
        ["client.chat()"],
    ),
    "two answers at once on one chat": (
        lambda c: two_at_once(c.chat()),
        StateError,
        "STATE_BUSY",
        ["not finished", "fork()"],
    ),
    "template of a call that is not Jinja": (
        lambda c: c.ask("Hi", chat_template="{{ messages"),
        TemplateSyntaxError,
        "TEMPLATE_SYNTAX_ERROR",
        [],
    ),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_the_error_for_a_wrong_argument_names_it_and_the_remedy(
    client: Client, argument: str
) -> None:
    call, error, code, words = ARGUMENTS[argument]
    with pytest.raises(error) as caught:
        call(client)
    assert caught.value.code == code
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_sound_model_answers_after_every_wrong_call(client: Client) -> None:
    assert client.ask("Hi", max_tokens=1).usage.completion_tokens == 1


CLOSED = {  # uses of a closed client or chat
    "client": (
        "STATE_CLOSED",
        lambda client, _: [
            lambda: client.ask("Hi"),
            lambda: client.stream("Hi"),
            lambda: client.chat(),
            lambda: client.raw_complete("Hi"),
            lambda: client.embed("Hi"),
            lambda: client.capabilities(),
            lambda: setattr(client, "default_model", "talu/pocket"),
        ],
    ),
    "chat": (
        "CHAT_CLOSED",
        lambda _, chat: [
            lambda: chat("Hi"),
            lambda: chat.send("Hi"),
            lambda: chat.regenerate(),
            lambda: chat.items,
            lambda: chat.append("user", "Hi"),
            lambda: chat.fork(),
            lambda: chat.count_tokens("Hi"),
            lambda: chat.preview_prompt(),
            lambda: chat.to_dict(),
        ],
    ),
}


@pytest.mark.parametrize("closed", CLOSED)
def test_every_use_of_a_closed_object_says_that_it_is_closed(closed: str) -> None:
    code, uses = CLOSED[closed]
    with Client("talu/pocket") as client:
        chat = client.chat(system="S")
        (client if closed == "client" else chat).close()
        for use in uses(client, chat):
            with pytest.raises(StateError, match=f"the {closed} has been closed") as caught:
                use()
            assert caught.value.code == code


MODELS = {
    "missing folder": ("/no/such/folder", ModelNotFoundError, "MODEL_NOT_FOUND", ["/no/such"]),
    "missing relative folder": ("./nowhere", ModelNotFoundError, "MODEL_NOT_FOUND", ["nowhere"]),
    "file instead of a folder": (__file__, ModelError, "MODEL_ERROR", ["is a file"]),
    "unknown provider": (
        "opnai::gpt-4o",
        ValidationError,
        "AMBIGUOUS_BACKEND",
        ["did you mean 'openai'"],
    ),
    "remote model without a key": (
        "openai::gpt-4o",
        ValidationError,
        "MISSING_KEY",
        ["openai", "OPENAI_API_KEY", "api_key="],
    ),
}


@pytest.mark.parametrize("reference", MODELS)
def test_a_wrong_model_reference_is_named_when_it_is_used(reference: str) -> None:
    model, error, code, words = MODELS[reference]
    with Client(model) as client, pytest.raises(error) as caught:
        client.ask("Hi")
    assert caught.value.code == code
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_gpu_that_is_not_used_is_an_error() -> None:
    client = Client("talu/pocket", gpu_layers=4)
    with client, pytest.raises(ValidationError, match=r"gpu_layers=4 .*CPU only"):
        client.ask("Hi")
