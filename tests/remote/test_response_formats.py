"""Remote models are asked for a form in their provider's way, and their answers are checked."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pydantic
import pytest
from tests.remote.llama import ALIAS, LlamaCpp
from tests.remote.replies import chat, completion, failure, message
from tests.remote.server import Server

from talu import (
    AnthropicBackend,
    Choice,
    EndpointError,
    Grammar,
    ModelSpec,
    OpenAICompatibleBackend,
    Regex,
    SchemaValidationError,
    StructuredOutputError,
    ValidationError,
)
from talu.backends.remote.providers import PROVIDERS
from talu.backends.remote.response_formats import form_fields
from talu.backends.remote.strict import strict_problem
from talu.router import Fallback
from talu.structured.formats import format_of

Serve = Callable[..., Server]


class Town(pydantic.BaseModel):
    name: str
    large: bool


SCHEMA = format_of(Town).schema
GOOD, BAD = '{"name": "Rome", "large": true}', '{"name": "Rome"}'
NAMED = {"name": "Town", "schema": SCHEMA, "strict": True}
OPENAI = {"response_format": {"type": "json_schema", "json_schema": NAMED}}
FORMS: dict[str, Any] = {
    "json": Town,
    "regex": Regex("a+"),
    "choice": Choice(["a", 'b"c']),
    "gbnf": Grammar('root ::= "a"'),
    "lark": Grammar('start: "a"'),
}
FIELDS: dict[str, dict[str, Any]] = {  # by dialect and kind; kinds that are missing have no fields
    "openai": {"json": OPENAI},
    "anthropic": {"json": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}},
    "vllm": {
        "json": {"structured_outputs": {"json": SCHEMA}},
        "regex": {"structured_outputs": {"regex": "a+"}},
        "choice": {"structured_outputs": {"choice": ["a", 'b"c']}},
        "gbnf": {"structured_outputs": {"grammar": 'root ::= "a"'}},
        "lark": {"structured_outputs": {"grammar": 'start: "a"'}},
    },
    "sglang": {
        "json": OPENAI,
        "regex": {"regex": "a+"},
        "choice": {"regex": '(a)|(b"c)'},
        "gbnf": {"ebnf": 'root ::= "a"'},
    },
    "llamacpp": {
        "json": OPENAI,
        "choice": {"grammar": 'root ::= "a" | "b\\"c"'},
        "gbnf": {"grammar": 'root ::= "a"'},
    },
}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("dialect", FIELDS)
def test_each_kind_of_server_is_asked_in_its_own_way(dialect: Any, kind: str) -> None:
    fields = form_fields(format_of(FORMS[kind]), dialect, raw=False)
    assert fields == FIELDS[dialect].get(kind)


def test_the_providers_that_take_no_form_are_listed_here() -> None:
    assert [name for name, row in PROVIDERS.items() if row.forms is None] == ["groq", "deepseek"]


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "integer"}, "root"),
        ({"type": "object"}, "additional"),
        (
            {
                "type": "object",
                "properties": {"a": {}},
                "required": [],
                "additionalProperties": False,
            },
            "not required",
        ),
    ],
)
def test_a_schema_that_openai_does_not_enforce_is_recognised(schema: Any, problem: str) -> None:
    assert problem in str(strict_problem(schema))


def spec(server: Server, provider: str = "openai", **options: Any) -> ModelSpec:
    backend = OpenAICompatibleBackend(f"{server.url}/v1", api_key="key", **options)
    return ModelSpec(f"{provider}::m", backend, name="m")


def test_an_answer_is_asked_for_and_checked(remote: Any, serve: Serve) -> None:
    server = serve(chat(GOOD))
    answer = remote.run(remote.client_of(spec(server)).ask("Hi", response_format=Town))
    assert server.request.json["response_format"] == OPENAI["response_format"]
    assert answer.parsed == Town(name="Rome", large=True)
    assert answer.schema_report.enforced == ()
    assert answer.schema_report.enforced_by == "openai"
    assert "#/required" in answer.schema_report.checked
    assert answer.notes == ()


def test_a_stream_has_partial_values(remote: Any, serve: Serve) -> None:
    server = serve(chat(*GOOD))
    stream = remote.run(remote.client_of(spec(server)).chat()("Hi", response_format=Town))
    remote.read_some(stream, 12)
    assert stream.partial == {"name": "Ro"}


def test_an_answer_of_another_form_is_an_error_where_its_value_is_read(
    remote: Any, serve: Serve
) -> None:
    answer = remote.run(remote.client_of(spec(serve(chat(BAD)))).ask("Hi", response_format=Town))
    assert answer == BAD
    with pytest.raises(SchemaValidationError, match="large"):
        assert answer.parsed


def test_a_schema_that_is_only_a_wish_is_noted(remote: Any, serve: Serve) -> None:
    server = serve(chat("3"))
    answer = remote.run(
        remote.client_of(spec(server)).ask("Hi", response_format={"type": "integer"})
    )
    assert server.request.json["response_format"]["json_schema"]["strict"] is False
    assert "enforces no such schema" in answer.notes[0]
    assert answer.parsed == 3


def test_anthropic_is_asked_in_its_own_way(remote: Any, serve: Serve) -> None:
    server = serve(message(GOOD))
    backend = AnthropicBackend(server.url, api_key="key")
    client = remote.client_of(ModelSpec("m", backend, name="m"))
    assert remote.run(client.ask("Hi", response_format=Town)).parsed.name == "Rome"
    assert server.request.json["output_config"] == FIELDS["anthropic"]["json"]["output_config"]


def test_a_raw_completion_of_vllm_takes_a_form(remote: Any, serve: Serve) -> None:
    server = serve(completion("aaa"))
    client = remote.client_of(spec(server, "vllm"))
    assert remote.run(client.raw_complete("Hi", response_format=Regex("a+"))).parsed == "aaa"
    assert server.request.json["structured_outputs"] == {"regex": "a+"}


@pytest.mark.parametrize(
    ("provider", "form"),
    [("openai", Regex("a+")), ("openai", Choice(["a"])), ("deepseek", Town), ("groq", Town)],
    ids=["regex", "choice", "deepseek", "groq"],
)
def test_a_form_that_a_provider_lacks_is_an_error_and_nothing_is_sent(
    remote: Any, serve: Serve, provider: str, form: Any
) -> None:
    server = serve()
    conversation = remote.client_of(spec(server, provider)).chat("Be short.")
    with pytest.raises(ValidationError, match="response_format") as caught:
        remote.run(conversation.send("Hi", response_format=form))
    assert caught.value.details["param"] == "response_format"
    assert len(conversation.items) == 1
    assert server.requests == []


def test_the_error_of_a_form_that_a_provider_lacks_names_the_option_of_its_backend(
    remote: Any, serve: Serve
) -> None:
    client = remote.client_of(spec(serve(), "openai"))
    with pytest.raises(ValidationError, match=r"RemoteBackend\(on_unsupported='warn'\)"):
        remote.run(client.ask("Hi", response_format=Regex("a+")))


def test_a_policy_asks_the_next_model_for_a_form_that_one_lacks(remote: Any, serve: Serve) -> None:
    lacking, having = serve(), serve(chat("aaa"))
    client = remote.client_of(
        replace(spec(lacking), name="a"), replace(spec(having, "vllm"), name="b"), policy=Fallback()
    )
    answer = remote.run(client.ask("Hi", response_format=Regex("a+")))
    assert (answer.parsed, answer.model) == ("aaa", "b")
    assert [attempt.error for attempt in answer.attempts] == ["UNSUPPORTED", None]
    assert lacking.requests == []


def test_a_schema_that_is_not_valid_is_not_sent(remote: Any, serve: Serve) -> None:
    server = serve()
    with pytest.raises(StructuredOutputError, match="strin"):
        remote.run(remote.client_of(spec(server)).ask("Hi", response_format={"type": "strin"}))
    assert server.requests == []


def test_extra_fields_may_not_ask_for_another_form(remote: Any, serve: Serve) -> None:
    server = serve()
    with pytest.raises(ValidationError, match="another argument of the call sets"):
        remote.run(
            remote.client_of(spec(server)).ask(
                "Hi", response_format=Town, extra_body={"response_format": {"type": "text"}}
            )
        )
    assert server.requests == []


def test_with_a_warning_the_answer_is_only_checked(remote: Any, serve: Serve) -> None:
    server = serve(chat("a"))
    client = remote.client_of(spec(server, on_unsupported="warn"))
    answer = remote.run(client.ask("Hi", response_format=Choice(["a", "b"])))
    assert "response_format" not in server.request.json
    assert answer.parsed == "a"
    assert "only checked" in answer.notes[0]
    assert answer.schema_report.enforced_by is None


def test_a_form_that_the_server_does_not_take_is_explained_instead(
    remote: Any, serve: Serve
) -> None:
    server = serve(chat("a"), chat(GOOD), chat("a"))
    client = remote.client_of(spec(server, on_unsupported="warn"))
    answer = remote.run(client.ask("Hi", response_format=Choice(["a", "b"])))
    content = "Answer with one of these texts, and nothing else:\n- a\n- b\n\nHi"
    assert server.request.json["messages"] == [{"role": "user", "content": content}]
    assert answer.schema_report.explained == "choice"
    taken = remote.run(client.ask("Hi", response_format=Town))
    assert server.requests[-1].json["messages"] == [{"role": "user", "content": "Hi"}]
    assert taken.schema_report.explained is None
    hidden = remote.run(client.ask("Hi", response_format=Choice(["a"]), inject_schema_prompt=False))
    assert server.requests[-1].json["messages"] == [{"role": "user", "content": "Hi"}]
    assert hidden.schema_report.explained is None


def test_a_form_is_explained_beside_the_field_of_the_server_if_that_is_asked(
    remote: Any, serve: Serve
) -> None:
    server = serve(chat(GOOD))
    settings = {"inject_schema_prompt": True, "schema_strategy": "json_schema"}
    answer = remote.run(remote.client_of(spec(server)).ask("Hi", response_format=Town, **settings))
    body = server.request.json
    assert body["response_format"] == OPENAI["response_format"]
    assert json.dumps(SCHEMA) in body["messages"][0]["content"]
    assert not {*settings} & {*body}
    assert answer.schema_report.explained == "json_schema"


@pytest.mark.parametrize("allowed", [True, False])
def test_servers_that_render_templates_are_told_whether_to_think(
    remote: Any, serve: Serve, allowed: bool
) -> None:
    server = serve(chat("Hi"))
    client = remote.client_of(spec(server, "vllm"))
    remote.run(client.ask("Hi", allow_thinking=allowed, extra_context={"a": 1}))
    variables = {"enable_thinking": allowed, "thinking": allowed, "a": 1}
    assert server.request.json["chat_template_kwargs"] == variables
    with pytest.raises(ValidationError, match="has no allow_thinking"):
        remote.run(remote.client_of(spec(serve(chat("Hi")))).ask("Hi", allow_thinking=allowed))


def test_a_wrong_answer_is_asked_for_again_without_a_trace_in_the_history(
    remote: Any, serve: Serve
) -> None:
    server = serve(chat("Sure!"), chat(BAD), chat(GOOD))
    conversation = remote.client_of(spec(server)).chat()
    answer = remote.run(conversation.send("Hi", response_format=Town, validation_retries=3))
    assert answer.parsed == Town(name="Rome", large=True)
    assert [item.text for item in conversation.items] == ["Hi", GOOD]
    first, second, third = (request.json for request in server.requests)
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": "Sure!"}
    assert "not JSON" in second["messages"][2]["content"]
    assert [m["role"] for m in third["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert "validation_retries" not in json.dumps(third)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (21, 9)
    assert [note[:28] for note in answer.notes] == [
        "answer 1 was asked for again",
        "answer 2 was asked for again",
    ]


def test_the_last_answer_stays_when_no_repetition_helps(remote: Any, serve: Serve) -> None:
    server = serve(chat("one"), chat("one"), chat("two"))
    conversation = remote.client_of(spec(server)).chat()
    answer = remote.run(conversation.send("Hi", response_format=Town, validation_retries=2))
    assert (answer, len(conversation.items), len(answer.notes)) == ("two", 2, 2)
    with pytest.raises(SchemaValidationError):
        assert answer.parsed


def test_a_failure_of_a_repetition_leaves_the_chat_as_it_was(remote: Any, serve: Serve) -> None:
    server = serve(chat("one"), failure(400, "no"))
    conversation = remote.client_of(spec(server)).chat("Be short.")
    with pytest.raises(EndpointError, match="no"):
        remote.run(conversation.send("Hi", response_format=Town, validation_retries=1))
    assert len(conversation.items) == 1


def test_an_answer_that_is_read_while_it_comes_cannot_be_repeated(
    remote: Any, serve: Serve
) -> None:
    conversation = remote.client_of(spec(serve())).chat()
    with pytest.raises(ValidationError, match="validation_retries needs a whole answer"):
        remote.run(conversation("Hi", response_format=Town, validation_retries=1))
    assert len(conversation.items) == 0


@pytest.fixture
def client(remote: Any, llama: LlamaCpp) -> Any:
    return remote.client_of(
        ModelSpec(f"llamacpp::{ALIAS}", OpenAICompatibleBackend(llama.base_url), name="m")
    )


@pytest.mark.parametrize(
    "form",
    [Town, Choice(["yes", "no"]), Grammar('root ::= "it is " ("hot" | "cold")')],
    ids=["schema", "choice", "grammar"],
)
def test_a_real_llama_cpp_follows_the_form(remote: Any, client: Any, form: Any) -> None:
    settings: Any = {"response_format": form, "max_tokens": 60, "seed": 1, "temperature": 0.5}
    for ask in (client.ask, client.raw_complete):
        answer = remote.run(ask("Is Rome large?", **settings))
        assert answer.parsed
        assert answer.schema_report.enforced_by == "llamacpp"
