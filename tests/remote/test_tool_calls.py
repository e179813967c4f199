"""Remote models get tools and the choice among them, and stream the arguments of their calls."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.llama import ALIAS, LlamaCpp
from tests.remote.server import Reply, Server

from talu import AnthropicBackend, ModelSpec, OpenAICompatibleBackend, ValidationError, convert
from talu.backends.remote.openai_chat import tool_fields
from talu.backends.remote.providers import provider_named
from talu.backends.remote.strict import is_strict
from talu.chat import ToolCallPiece
from talu.chat.builder import MAX_CALLS, TOO_MANY
from talu.exceptions import EndpointError
from talu.tools import Tool, as_tool
from talu.types import Request

Serve = Callable[..., Server]
NO_CALL = "the server called no tool although tool_choice is 'required'"


def weather(city: str) -> str:
    """Say how the weather is."""
    return f"sunny in {city}"


def clock() -> str:
    """Say what time it is."""
    return "noon"


def openai_calls(*arguments: list[str]) -> Reply:
    """An answer with a call for each list, whose arguments come in these pieces."""
    deltas = []
    for number, pieces in enumerate(arguments):
        function = {"name": "weather", "arguments": ""}
        start = {"index": number, "id": f"c{number}", "type": "function", "function": function}
        deltas.append(replies.delta(tool_calls=[start]))
        for piece in pieces:
            part = {"index": number, "function": {"arguments": piece}}
            deltas.append(replies.delta(tool_calls=[part]))
    return replies.stream(*deltas, replies.delta(finish="tool_calls"), replies.event("[DONE]"))


def anthropic_calls(*arguments: list[str]) -> Reply:
    """The same in the messages protocol."""
    blocks = []
    for number, pieces in enumerate(arguments):
        use = {"type": "tool_use", "id": f"c{number}", "name": "weather", "input": {}}
        parts = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        blocks += replies.block(number, use, *parts)
    return replies.stream(replies.message_start(), *blocks, *replies.message_end("tool_use"))


CALLS = {"openai": openai_calls, "anthropic": anthropic_calls}


def objects(schema: dict[str, Any]) -> dict[str, Any]:
    """A closed object with one property."""
    return {
        "type": "object",
        "properties": {"a": schema},
        "required": ["a"],
        "additionalProperties": False,
    }


TEXTS: dict[str, Any] = {"openai": replies.chat, "anthropic": replies.message}


def client_of(faces: Any, server: Server, protocol: str, **options: Any) -> Any:
    backend = AnthropicBackend if protocol == "anthropic" else OpenAICompatibleBackend
    spec = ModelSpec("m", backend(base_url=server.url, max_retries=0, **options))
    return faces.face.client_class(spec)


@pytest.fixture(params=["openai", "anthropic"])
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_arguments_of_a_call_come_in_pieces_that_join_to_the_whole(
    faces: Any, serve: Serve, protocol: str
) -> None:
    pieces = ['{"ci', 'ty": "S', "\\u00e3o ", 'Paulo"}']
    server = serve(CALLS[protocol](pieces, ['{"city": "Rome"}']))
    chat = client_of(faces, server, protocol).chat(tools=[weather])
    stream = faces.run(chat.send("q", stream=True))
    read = [piece for piece in faces.read(stream) if isinstance(piece, ToolCallPiece)]
    assert len([piece for piece in read if piece.call_id == "c0"]) == len(pieces) + 1
    for call in stream.tool_calls:
        assert call.arguments == "".join(p.arguments for p in read if p.call_id == call.id)
    assert [call.execute() for call in stream.tool_calls] == ["sunny in São Paulo", "sunny in Rome"]


def test_talu_carries_out_the_calls_of_a_server(faces: Any, serve: Serve, protocol: str) -> None:
    server = serve(
        CALLS[protocol](['{"city": "Rome"}'], ['{"city": 3}']), TEXTS[protocol]("Sunny.")
    )
    client = client_of(faces, server, protocol)
    answer = faces.run(client.ask("q", tools=[weather], max_rounds=2))
    assert answer == "Sunny."
    sent = server.requests[1].json["messages"]
    if protocol == "openai":
        results = {m["tool_call_id"]: m["content"] for m in sent if m["role"] == "tool"}
    else:
        results = {part["tool_use_id"]: part["content"] for part in sent[-1]["content"]}
    assert results["c0"] == "sunny in Rome"
    assert results["c1"].startswith("Error: the arguments of the call of 'weather' do not fit")


def cut_call(protocol: str, reason: str, streamed: bool) -> Reply:
    """An answer that ends before the arguments of its call."""
    if protocol == "openai":
        function = {"name": "clock", "arguments": ""}
        call = {"index": 0, "id": "c0", "type": "function", "function": function}
        if streamed:
            return replies.stream(
                replies.delta(tool_calls=[call]),
                replies.delta(finish=reason),
                replies.event("[DONE]"),
            )
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return replies.json_reply(
            {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}
        )
    use = {"type": "tool_use", "id": "c0", "name": "clock", "input": {}}
    if streamed:
        ends = replies.message_end(reason)
        return replies.stream(replies.message_start(), *replies.block(0, use), *ends)
    return replies.json_reply({"type": "message", "content": [use], "stop_reason": reason})


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_a_call_that_was_cut_before_its_arguments_is_not_carried_out(
    faces: Any, serve: Serve, protocol: str, streamed: bool
) -> None:
    reason = {"openai": "length", "anthropic": "max_tokens"}[protocol]
    server = serve(cut_call(protocol, reason, streamed))
    chat = client_of(faces, server, protocol).chat(tools=[clock])
    answer = faces.run(chat.send("q"))
    assert [call.arguments for call in answer.tool_calls] == [""]
    assert chat.open_calls == []
    (note,) = [each for each in answer.notes if "is incomplete" in each]
    assert "'clock'" in note
    assert "max_tokens cut the answer" in note


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_a_call_without_arguments_is_complete_where_the_model_ended_the_answer(
    faces: Any, serve: Serve, protocol: str, streamed: bool
) -> None:
    reason = {"openai": "tool_calls", "anthropic": "tool_use"}[protocol]
    server = serve(cut_call(protocol, reason, streamed))
    chat = client_of(faces, server, protocol).chat(tools=[clock])
    answer = faces.run(chat.send("q"))
    assert [call.execute() for call in answer.tool_calls] == ["noon"]


FIELDS = {
    "openai": {
        "auto": "auto",
        "none": "none",
        "required": "required",
        "clock": {"type": "function", "function": {"name": "clock"}},
    },
    "anthropic": {
        "auto": {"type": "auto"},
        "none": {"type": "none"},
        "required": {"type": "any"},
        "clock": {"type": "tool", "name": "clock"},
    },
}


@pytest.mark.parametrize("choice", ["auto", "none", "required", "clock"])
def test_a_choice_is_sent_in_the_form_of_the_protocol(
    faces: Any, serve: Serve, protocol: str, choice: str
) -> None:
    server = serve(TEXTS[protocol]("Hi."))
    client = client_of(faces, server, protocol)
    faces.run(client.ask("q", tools=[weather, clock], tool_choice=choice))
    assert server.requests[0].json["tool_choice"] == FIELDS[protocol][choice]


def test_one_call_at_a_time_is_asked_for_and_kept_to(
    faces: Any, serve: Serve, protocol: str
) -> None:
    server = serve(CALLS[protocol](['{"city": "Rome"}'], ['{"city": "Oslo"}']))
    chat = client_of(faces, server, protocol).chat()
    answer = faces.run(chat.send("q", tools=[weather], parallel_tool_calls=False))
    body = server.requests[0].json
    if protocol == "openai":
        assert body["parallel_tool_calls"] is False
    else:
        assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert [call.id for call in answer.tool_calls] == ["c0"]
    assert "2 tool calls although parallel_tool_calls is False" in answer.notes[-1]


def test_a_server_that_makes_very_many_calls_is_cut_off(
    faces: Any, serve: Serve, protocol: str
) -> None:
    calls = [['{"city": "Rome"}']]
    server = serve(CALLS[protocol](*calls * 200), TEXTS[protocol]("Sunny."))
    client = client_of(faces, server, protocol)
    answer = faces.run(client.ask("q", tools=[weather], max_rounds=2))
    assert (len(answer.tool_runs), answer.notes[0]) == (MAX_CALLS, TOO_MANY)
    client = client_of(faces, serve(CALLS[protocol](*calls * 20_000)), protocol)
    with pytest.raises(EndpointError, match="more than 1,000 tool calls"):
        faces.run(client.ask("q", tools=[weather], max_rounds=2))


def test_an_answer_without_the_call_that_was_demanded_has_a_note(
    faces: Any, serve: Serve, protocol: str
) -> None:
    client = client_of(faces, serve(TEXTS[protocol]("Hi.")), protocol)
    answer = faces.run(client.ask("q", tools=[weather], tool_choice="required"))
    assert NO_CALL in answer.notes


@pytest.mark.parametrize(
    ("choice", "called"), [("clock", "called 'weather'"), ("none", "called a tool")]
)
def test_a_call_against_the_choice_is_refused_and_noted(
    faces: Any, serve: Serve, protocol: str, choice: str, called: str
) -> None:
    server = serve(CALLS[protocol](['{"city": "Rome"}']), TEXTS[protocol]("Hi."))
    chat = client_of(faces, server, protocol).chat(tools=[weather, clock], max_rounds=2)
    answer = faces.run(chat.send("q", tool_choice=choice))
    (run,) = answer.tool_runs
    refusal = f"the call was refused: tool_choice is '{choice}'"
    assert (run.error.code, run.output) == ("TOOL_REFUSED", f"Error: {refusal}")
    assert answer.notes == (
        f"the server {called} although tool_choice is '{choice}'",
        f"the call of 'weather' was not carried out: {refusal}",
    )


@pytest.mark.parametrize("name", ["llamacpp", "lmstudio"])
def test_a_server_that_takes_no_names_gets_the_chosen_tool_alone(name: str) -> None:
    tools = tuple({"type": "function", "function": {"name": each}} for each in ("a", "b"))
    fields = tool_fields(Request(tools=tools, tool_choice="b"), provider_named(name))
    assert fields == {"tools": [dict(tools[1])], "tool_choice": "required"}


def test_a_choice_that_a_server_ignores_is_an_error_or_a_note(faces: Any, serve: Serve) -> None:
    server = serve(replies.chat("Hi."))

    def ask(**options: Any) -> Any:
        backend = OpenAICompatibleBackend(base_url=f"{server.url}", max_retries=0, **options)
        client = faces.face.client_class(ModelSpec("ollama::m", backend))
        return faces.run(client.ask("q", tools=[weather], tool_choice="required"))

    with pytest.raises(ValidationError, match="has no tool_choice") as refused:
        ask()
    assert refused.value.details["param"] == "tool_choice"
    assert server.requests == []
    assert "ollama has no tool_choice: it was left out" in ask(on_unsupported="warn").notes
    assert "tool_choice" not in server.requests[0].json


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    """A server of the model in the package, whose template knows tools."""
    path = tmp_path_factory.mktemp("tools") / "pocket.gguf"
    convert("talu/pocket", to="f16", output=path)
    with LlamaCpp(model=path) as server:
        yield server


@pytest.mark.parametrize("stream", [False, True])
def test_llamacpp_is_made_to_call_and_gets_the_result(
    remote: Any, pocket: LlamaCpp, stream: bool
) -> None:
    backend = OpenAICompatibleBackend(pocket.base_url)
    client = remote.client_of(ModelSpec(f"llamacpp::{ALIAS}", backend))
    chat = client.chat(tools=[weather, clock])
    settings: Any = {"tool_choice": "weather", "temperature": 0, "max_tokens": 60}
    answer = remote.run(chat.send("How is the weather in Rome?", stream=stream, **settings))
    if stream:
        read = [piece for piece in remote.read(answer) if isinstance(piece, ToolCallPiece)]
        assert "".join(p.arguments for p in read) == answer.tool_calls[0].arguments
    (call,) = answer.tool_calls
    assert (call.name, call.execute()) == ("weather", "sunny in Rome")
    results = {call.id: call.execute()}
    last = remote.run(chat.submit_tool_results(results, tool_choice="none", max_tokens=8))
    assert (last.tool_calls, bool(last.text)) == (None, True)


def test_llamacpp_without_tools_in_its_template_has_a_note(remote: Any, llama: LlamaCpp) -> None:
    backend = OpenAICompatibleBackend(llama.base_url)
    client = remote.client_of(ModelSpec(f"llamacpp::{ALIAS}", backend))
    answer = remote.run(client.ask("q", tools=[weather], tool_choice="required", max_tokens=4))
    assert NO_CALL in answer.notes


def find(place: str) -> str:
    """Find something."""
    return place


def sort(order: str = "up") -> str:
    """Sort something."""
    return order


STRICT = {"find": True, "sort": None, "loose": None}


def definitions(server: Server) -> dict[str, Any]:
    functions = [tool.get("function", tool) for tool in server.requests[0].json["tools"]]
    return {function["name"]: function.get("strict") for function in functions}


@pytest.mark.parametrize("provider", ["openai", "mistral", "vllm", "anthropic"])
def test_only_a_provider_that_enforces_schemas_is_asked_to_and_for_those_that_it_can(
    faces: Any, serve: Serve, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXTS["anthropic" if provider == "anthropic" else "openai"]
    server = serve(text("Hi."))
    monkeypatch.setenv(f"{provider.upper()}_BASE_URL", server.url)
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "sk-test")
    tools = [find, sort, Tool("loose", "", as_tool(find).parameters, strict=False)]
    faces.run(faces.face.client_class(f"{provider}::m").ask("q", tools=tools))
    expected = STRICT if provider == "openai" else dict.fromkeys(STRICT)
    assert definitions(server) == expected


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {}, "required": [], "additionalProperties": False}, True),
        (as_tool(find).parameters, True),
        (as_tool(sort).parameters, False),
        ({"type": "object", "properties": {}}, False),
        (objects({"enum": ["a"]}), False),
        (objects({"type": "string", "enum": ["a"]}), True),
        (objects({"type": "array", "uniqueItems": True}), False),
        (objects({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1}]}), True),
        (objects({"not": {"type": "null"}}), False),
    ],
    ids=lambda value: None if isinstance(value, bool) else str(value)[:60],
)
def test_schemas_that_openai_would_refuse_are_not_called_strict(
    schema: dict[str, Any], strict: bool
) -> None:
    assert is_strict(schema) is strict


def test_anthropic_is_told_which_results_are_failures(faces: Any, serve: Serve) -> None:
    server = serve(
        anthropic_calls(['{"city": "Rome"}'], ['{"city": 3}']), replies.message("Sunny.")
    )
    faces.run(client_of(faces, server, "anthropic").ask("q", tools=[weather], max_rounds=2))
    results = server.requests[1].json["messages"][-1]["content"]
    assert [(r["tool_use_id"], r.get("is_error")) for r in results] == [("c0", None), ("c1", True)]


def test_reports_name_what_is_checked_and_who_was_asked_to_enforce_it(
    faces: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(replies.chat("Hi."))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    client = faces.face.client_class("openai::m")
    odd = Tool("odd", "", objects({"type": "array", "uniqueItems": True, "typo": 1}))
    answer = faces.run(client.chat(tools=[find, odd]).send("q"))
    assert answer.tool_reports["find"].enforced_by == "openai"
    report = answer.tool_reports["odd"]
    assert (report.enforced, report.enforced_by) == ((), None)
    assert "#/properties/a/uniqueItems" in report.checked
    assert report.ignored == ("#/properties/a/typo",)
    copied = pickle.loads(pickle.dumps(answer))
    assert copied.tool_reports == answer.tool_reports
    assert copied.to_dict()["tool_reports"]["odd"]["enforced_by"] is None
