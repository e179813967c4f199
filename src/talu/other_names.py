"""Suggests the right name when an attribute does not exist, also for names of other libraries."""

from talu.error_text import nearest

__all__ = ["OTHER_NAMES", "no_attribute"]

ASK = "client.ask(prompt)"
MESSAGES = "client.ask(messages), with a list of dictionaries"
EMBED = "client.embed(text) or client.embed_batch(texts)"
SETTINGS = "GenerationConfig, or keywords such as client.ask(prompt, temperature=0)"
TEXT = "the response itself, which is a str, or response.text"

OTHER_NAMES = {  # class, or "talu" for the module: a name in other libraries, and what to use here
    "talu": {
        "AutoModel": "talu.Client(model)",
        "AutoModelForCausalLM": "talu.Client(model)",
        "AutoTokenizer": "talu.Client(model).tokenize(text)",
        "Anthropic": "talu.Client(model)",
        "AsyncLLM": "talu.AsyncClient(model)",
        "AsyncOpenAI": "talu.AsyncClient(model)",
        "LLM": "talu.Client(model)",
        "Llama": "talu.Client(model)",
        "Model": "talu.Client(model)",
        "OpenAI": "talu.Client(model)",
        "SamplingParams": SETTINGS,
        "Session": "talu.Chat(model), or talu.Profile for stored chats",
        "Tokenizer": "talu.Client(model).tokenize(text)",
        "complete": "talu.ask(model, prompt), or talu.raw_complete without a chat template",
        "completion": "talu.ask(model, prompt), or talu.raw_complete without a chat template",
        "count_tokens": "talu.Client(model).count_tokens(text)",
        "embed": "talu.Client(model).embed(text) or embed_batch(texts)",
        "embedding": "talu.Client(model).embed(text) or embed_batch(texts)",
        "embeddings": "talu.Client(model).embed(text) or embed_batch(texts)",
        "generate": "talu.ask(model, prompt)",
        "get_model": "talu.Client(model)",
        "load": "talu.Client(model)",
        "load_model": "talu.Client(model)",
        "pipeline": "talu.Client(model)",
        "tokenize": "talu.Client(model).tokenize(text)",
    },
    "BaseClient": {
        "batch": "client.ask(prompts), with a list of texts",
        "chats": "talu.Profile, whose sessions() lists the stored chats",
        "complete": f"{ASK}, or client.raw_complete(prompt) without a chat template",
        "completion": f"{ASK}, or client.raw_complete(prompt) without a chat template",
        "completions": f"{ASK}, or client.raw_complete(prompt) without a chat template",
        "create_chat_completion": MESSAGES,
        "create_completion": "client.raw_complete(prompt)",
        "create_embedding": EMBED,
        "decode": "client.detokenize(ids)",
        "embeddings": EMBED,
        "encode": "client.tokenize(text) for token ids, or client.embed(text) for a vector",
        "generate": ASK,
        "generate_stream": "client.stream(prompt)",
        "invoke": ASK,
        "list_models": "client.models",
        "messages": MESSAGES,
        "model": "client.default_model",
        "predict": ASK,
        "prompt": ASK,
        "responses": ASK,
        "send": f"{ASK}, or client.chat().send(message)",
        "start_chat": "client.chat()",
        "stream_generate": "client.stream(prompt)",
    },
    "Conversation": {
        "add": "chat.append(role, text)",
        "add_message": "chat.append(role, text)",
        "ask": "chat.send(message)",
        "complete": "chat.send(message)",
        "completions": "chat.send(message)",
        "generate": "chat.send(message)",
        "history": "chat.items or chat.messages",
        "id": "chat.session_id",
        "invoke": "chat.send(message)",
        "load": "client.chat(session_id=…) with a profile, or Chat.from_dict",
        "prompt": "chat.send(message)",
        "response": "chat.last_response",
        "save": "Client(model, profile=Profile()), which stores every chat, or chat.to_dict()",
        "send_message": "chat.send(message)",
        "stream": "chat(message), which streams, or chat.send(message, stream=True)",
        "system_message": "chat.system",
        "system_prompt": "chat.system",
        "turns": "chat.items or chat.messages",
        "undo": "chat.pop()",
    },
    "Answer": {
        "answer": TEXT,
        "choices": f"{TEXT}: there is one answer",
        "completion": TEXT,
        "generated_text": TEXT,
        "input_tokens": "response.usage.prompt_tokens",
        "json": "response.to_dict()",
        "message": TEXT,
        "messages": "response.chat.messages",
        "model_dump": "response.to_dict()",
        "output": TEXT,
        "output_text": TEXT,
        "output_tokens": "response.usage.completion_tokens",
        "outputs": TEXT,
        "reasoning_content": "response.reasoning",
        "response": TEXT,
        "stop_reason": "response.finish_reason",
        "thinking": "response.reasoning",
        "token_ids": "response.tokens",
    },
    "Profile": {
        "chats": "profile.sessions()",
        "list": "profile.sessions()",
        "load": "client.chat(session_id=…) of a client with this profile",
        "search": "profile.sessions(search=words)",
    },
    "StopFlag": {"set": "flag.signal()", "clear": "flag.reset()", "stop": "flag.signal()"},
}


def no_attribute(target: object, name: str) -> AttributeError:
    """The error for an attribute that an object lacks, with the name to use instead, if any."""
    wrong = f"{type(target).__name__!r} object has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(wrong, name=name, obj=target)
    for kind in type(target).__mro__:
        if name in (known := OTHER_NAMES.get(kind.__name__, {})):
            return AttributeError(f"{wrong}; use {known[name]}")
    public = [each for each in dir(type(target)) if not each.startswith("_")]
    return AttributeError(wrong + nearest(name, public))
