"""The providers of models behind an endpoint: a row of data for each, and what the flags mean.

A row says how a provider differs from a plain server with OpenAI's chat protocol, so a provider
that does not differ is a name, an address and a key. The code that encodes requests and decodes
answers reads the flags; it has no names of providers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from talu.types import Capabilities

__all__ = [
    "ALIASES",
    "OURS",
    "PLAIN",
    "PLAIN_ANTHROPIC",
    "PROVIDERS",
    "TEMPLATE",
    "TOOLS",
    "CallIds",
    "Dialect",
    "Protocol",
    "Provider",
    "provider_named",
]

Protocol = Literal["openai", "anthropic"]
Dialect = Literal["openai", "anthropic", "vllm", "sglang", "llamacpp"]
Reasoning = Literal["", "reasoning_content", "reasoning_details"]


class CallIds(NamedTuple):
    """The ids of tool calls that a provider takes.

    Attributes:
        pattern: the regular expression of them.
        derived: the characters of an id that replaces one in another form.
    """

    pattern: str
    derived: int = 32


OPENAI_IDS = CallIds(r"(?s:.{1,40})")
ANTHROPIC_IDS = CallIds(r"[a-zA-Z0-9_-]{1,64}")

SETTINGS = {  # the fields of ``GenerationConfig`` that every server takes, and their names there
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "stop_sequences": "stop",
    "seed": "seed",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "logit_bias": "logit_bias",
}
SAMPLING = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}
TOOLS = {name: name for name in ("tools", "tool_choice", "parallel_tool_calls")}
OURS = ("inject_schema_prompt", "schema_strategy")  # done here: no server sees them
TEMPLATE = {"extra_context": "chat_template_kwargs", "allow_thinking": "enable_thinking"}
LLAMA = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
LOCAL_S = 600.0  # a server on the user's own machine may load the model first


class Provider(NamedTuple):
    """A provider, or a kind of server.

    Attributes:
        name: the prefix of its references, as in ``name::model``; its variable
            ``<NAME>_BASE_URL`` replaces ``base_url``.
        base_url: its address; None for an endpoint that only its user knows.
        key_variable: environment variable with the key; None when there is none.
        needs_key: every request needs a key.
        protocol: what it speaks.
        also: settings that it takes beside those of OpenAI, with their names there.
        without: settings of OpenAI that it refuses or ignores.
        names: settings of OpenAI that have another name there, in chats.
        body: fields that every chat request has.
        completions: it has raw completions.
        token_prompts: its raw completions take token ids as a prompt.
        embeddings: it has embeddings.
        reranks: it scores documents for a query at ``/rerank``.
        forms: how it is asked for a form of the answer (``response_format``); None if it cannot be.
        enforces_strict: it enforces only schemas of OpenAI's strict kind.
        names_tools: it can be told which tool to call.
        max_stops: the most stop sequences of a request.
        counts_streams: it must be asked for the token counts of a stream.
        reasoning_back: the field in which its reasoning goes back to it with the history, if it
            does; ``reasoning_details`` holds what it sent, unchanged.
        reasoning_with_calls: its reasoning goes back with tool calls only.
        keeps_call_data: its tool calls have data that must come back with them.
        call_ids: the ids of tool calls that it takes; None if it takes any.
        first_token_s: seconds to wait for a first token.
        owned_by: how its list of models names their owner, by which a server is recognized.
    """

    name: str
    base_url: str | None = None
    key_variable: str | None = None
    needs_key: bool = True
    protocol: Protocol = "openai"
    also: Mapping[str, str] = MappingProxyType({})
    without: frozenset[str] = frozenset()
    names: Mapping[str, str] = MappingProxyType({})
    body: Mapping[str, object] = MappingProxyType({})
    completions: bool = False
    token_prompts: bool = False
    embeddings: bool = False
    reranks: bool = False
    forms: Dialect | None = "openai"
    enforces_strict: bool = False
    names_tools: bool = True
    max_stops: int | None = None
    counts_streams: bool = True
    reasoning_back: Reasoning = ""
    reasoning_with_calls: bool = False
    keeps_call_data: bool = False
    call_ids: CallIds | None = None
    first_token_s: float = 60.0
    owned_by: tuple[str, ...] = ()

    @property
    def url_variable(self) -> str:
        """The environment variable that replaces ``base_url``."""
        return f"{self.name.upper()}_BASE_URL"

    @property
    def capabilities(self) -> Capabilities:
        """What its models support, as far as that is known without asking."""
        return Capabilities.of(
            self.settings(raw=False), embeds=self.embeddings, reranks=self.reranks
        )

    def settings(self, *, raw: bool) -> Mapping[str, str]:
        """The settings that it honours, and their names in a request.

        Args:
            raw: of raw completions, not of chats.
        """
        known = SETTINGS | dict(self.also)
        if raw:
            templates = ("chat_template", *TEMPLATE)
            known = {name: theirs for name, theirs in known.items() if name not in templates}
        else:
            known |= {**self.names, **TOOLS, **dict(zip(OURS, OURS, strict=True))}
        if self.forms is not None and not (raw and self.forms in ("openai", "anthropic")):
            known["response_format"] = "response_format"
        return {name: theirs for name, theirs in known.items() if name not in self.without}


PLAIN = Provider(  # a server of which only the address is known
    name="compatible",
    needs_key=False,
    completions=True,
    token_prompts=True,
    embeddings=True,
    reranks=True,
)
PLAIN_ANTHROPIC = Provider(  # the same with Anthropic's protocol
    name="anthropic_compatible",
    needs_key=False,
    protocol="anthropic",
    forms="anthropic",
    also={"top_k": "top_k"},
    without=frozenset(SETTINGS) - {"max_tokens", "stop_sequences", "temperature", "top_p"},
    names={"stop_sequences": "stop_sequences"},
    call_ids=ANTHROPIC_IDS,
)

_ROWS = (
    Provider(
        name="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        names={"max_tokens": "max_completion_tokens"},
        completions=True,
        token_prompts=True,
        embeddings=True,
        enforces_strict=True,
        max_stops=4,
        call_ids=OPENAI_IDS,
        owned_by=("openai", "system", "openai-internal"),
    ),
    Provider(
        name="anthropic",
        base_url="https://api.anthropic.com",
        key_variable="ANTHROPIC_API_KEY",
        protocol="anthropic",
        forms="anthropic",
        without=frozenset(SETTINGS) - {"max_tokens", "stop_sequences"},
        names={"stop_sequences": "stop_sequences"},
        call_ids=ANTHROPIC_IDS,
    ),
    Provider(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        also=SAMPLING,
        # Without this it sends a request to models that ignore some of its settings.
        body={"provider": {"require_parameters": True}},
        completions=True,
        reasoning_back="reasoning_details",
    ),
    Provider(
        name="vllm",
        base_url="http://localhost:8000/v1",
        key_variable="VLLM_API_KEY",
        needs_key=False,
        also=SAMPLING
        | TEMPLATE
        | {"stop_token_ids": "stop_token_ids", "chat_template": "chat_template"}
        | {"cache_namespace": "cache_salt"},
        completions=True,
        token_prompts=True,
        embeddings=True,
        reranks=True,
        forms="vllm",
        first_token_s=LOCAL_S,
        owned_by=("vllm",),
    ),
    Provider(
        name="sglang",
        base_url="http://localhost:30000/v1",
        key_variable="SGLANG_API_KEY",
        needs_key=False,
        also=SAMPLING | TEMPLATE | {"stop_token_ids": "stop_token_ids"},
        completions=True,
        token_prompts=True,
        embeddings=True,
        reranks=True,
        forms="sglang",
        first_token_s=LOCAL_S,
        owned_by=("sglang",),
    ),
    Provider(
        name="ollama",
        base_url="http://localhost:11434/v1",
        key_variable="OLLAMA_API_KEY",
        needs_key=False,
        without=frozenset(  # it ignores them
            {"logprobs", "top_logprobs", "logit_bias", "tool_choice", "parallel_tool_calls"}
        ),
        completions=True,
        embeddings=True,
        first_token_s=LOCAL_S,
        owned_by=("library",),
    ),
    Provider(
        name="llamacpp",
        base_url="http://localhost:9931/v1",
        key_variable="LLAMACPP_API_KEY",
        needs_key=False,
        also=LLAMA | TEMPLATE,
        completions=True,
        token_prompts=True,
        embeddings=True,
        reranks=True,
        forms="llamacpp",
        names_tools=False,
        first_token_s=LOCAL_S,
        owned_by=("llamacpp",),
    ),
    Provider(
        name="lmstudio",
        base_url="http://localhost:1234/v1",
        key_variable="LM_API_TOKEN",
        needs_key=False,
        also={"top_k": "top_k", "repetition_penalty": "repeat_penalty"},
        without=frozenset({"logprobs", "top_logprobs", "parallel_tool_calls"}),
        names_tools=False,
        completions=True,
        embeddings=True,
        first_token_s=LOCAL_S,
        owned_by=("organization_owner",),
    ),
    Provider(
        name="localai",
        base_url="http://localhost:8080/v1",
        key_variable="LOCALAI_API_KEY",
        needs_key=False,
        also={"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
        completions=True,
        embeddings=True,
        reranks=True,
        without=frozenset({"parallel_tool_calls"}),
        first_token_s=LOCAL_S,
    ),
    Provider(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        forms=None,  # it has no forms in streams
        without=frozenset({"logprobs", "top_logprobs", "logit_bias"}),
        max_stops=4,
    ),
    Provider(
        name="together",
        base_url="https://api.together.xyz/v1",
        key_variable="TOGETHER_API_KEY",
        also=SAMPLING,
        without=frozenset({"parallel_tool_calls"}),
        completions=True,
        embeddings=True,
        reranks=True,
    ),
    Provider(
        name="fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        key_variable="FIREWORKS_API_KEY",
        also=SAMPLING,
        without=frozenset({"parallel_tool_calls"}),
        completions=True,
        embeddings=True,
    ),
    Provider(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        without=frozenset({"logprobs", "top_logprobs", "logit_bias"}),
        names={"seed": "random_seed"},
        embeddings=True,
        counts_streams=False,
        call_ids=CallIds("[a-zA-Z0-9]{9}", derived=9),
    ),
    Provider(
        name="deepseek",
        base_url="https://api.deepseek.com",
        key_variable="DEEPSEEK_API_KEY",
        forms=None,  # its chats know JSON without a schema only
        without=frozenset({"seed", "logit_bias", "parallel_tool_calls"}),
        reasoning_back="reasoning_content",
        reasoning_with_calls=True,
    ),
    Provider(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variable="GEMINI_API_KEY",
        without=frozenset({"logprobs", "top_logprobs", "logit_bias", "parallel_tool_calls"}),
        embeddings=True,
        keeps_call_data=True,
    ),
    Provider(
        name="xai",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        without=frozenset({"logit_bias"}),
    ),
)
PROVIDERS: dict[str, Provider] = {row.name: row for row in _ROWS}


ALIASES = {"oaic": "openai"}


def provider_named(name: str) -> Provider:
    """The row of a prefix or name.

    Raises:
        KeyError: there is none.
    """
    for row in (PLAIN, PLAIN_ANTHROPIC):
        if name == row.name:
            return row
    return PROVIDERS[ALIASES.get(name, name)]
