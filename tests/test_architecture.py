"""The allowed imports between the parts of talu; a new dependency needs a change of this table."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "talu"
FILES = sorted(SRC.rglob("*.py"))
LEAVES = {
    "aio",
    "arrays",
    "background",
    "bridge",
    "callers",
    "checks",
    "config",
    "contents",
    "deadline",
    "descriptors",
    "descriptions",
    "error_text",
    "events",
    "exceptions",
    "exits",
    "first_use",
    "forks",
    "json_values",
    "local_options",
    "other_names",
    "protocols",
    "ranking",
    "sampling",
    "structured",  # a folder that imports leaves only
    "thinking",
    "threads",
    "tools",  # as well
    "types",
    "unicode",
    "urls",
}
MAY_IMPORT = {  # part of talu: the other parts it may import; leaves are always allowed
    "__init__": {
        "backends",
        "client",
        "chat",
        "mcp",
        "oneshot",
        "profile",
        "router",
        "template",
    },
    "__main__": {"cli"},
    "client": {"chat", "client_base", "profile", "router"},
    "client_base": {"backends", "chat", "profile", "router"},
    "chat": {"router"},
    "oneshot": {"client", "chat", "router"},
    "profile": {"chat", "storage"},
    "hooks": {"chat"},
    "mcp": {"backends"},
    "cli": {"batch", "client", "chat", "conversion", "engine", "profile", "router", "sources"},
    "server": {"chat", "client", "hooks", "router"},
    "batch": {"server"},
    "router": {"backends"},
    "backends": {"engine", "sources", "template", "tokenizer", "tool_formats"},
    "tool_formats": {"template"},
    "conversion": {
        "engine",
        "gguf",
        "graph",
        "models",
        "sources",
        "tokenizer",
        "weights",
    },
    "engine": {"graph", "models", "sources", "weights", "tokenizer", "_native"},
    "models": {"graph", "sources"},
    "sources": {"gguf", "tokenizer", "weights"},
    "graph": {"_native"},
    "weights": {"_native"},
    "gguf": {"weights", "_native"},
    "tokenizer": {"_native"},
}
THIRD_PARTY_HOME = {  # a package from outside: the only files or folders that import it
    "anthropic": {"backends/remote/anthropic_sdk.py"},
    "anyio": {"mcp/stdio.py"},
    "click": {"cli"},
    "httpcore2": {"backends/remote/connections.py", "backends/remote/network.py"},
    "httpx2": {"backends/remote", "mcp/web.py"},
    "fastapi": {"server"},
    "filelock": {"sources/blobs.py"},
    "huggingface_hub": {
        "sources/blobs.py",
        "sources/hub.py",
        "sources/hub_cache.py",
        "sources/removal.py",
    },
    "jsonschema": {"structured/checking.py"},
    "jinja2": {"template/language.py", "template/sandbox.py"},
    "mcp": {"mcp/connection.py", "mcp/stdio.py", "mcp/web.py"},
    "mcp_types": {"mcp/connection.py", "mcp/stdio.py"},
    "llguidance": {"engine/grammars.py", "structured/matching.py"},
    "openai": {"backends/remote/openai_sdk.py"},
    "opentelemetry": {"hooks/otel.py"},
    "psycopg": {"storage/postgresql"},
    "pydantic": {"batch/answers.py", "mcp/connection.py", "server"},
    "prompt_toolkit": {"cli/typed_input.py"},
    "rich": {"cli", "sources/hub.py"},
    "starlette": {"server"},
    "tokenizers": {"tokenizer"},
    "uvicorn": {"server/running.py"},
}
PURE = [  # pure files: no input, output, threads or clocks
    "backends/remote/anthropic_messages.py",
    "backends/remote/answers.py",
    "backends/remote/checks.py",
    "backends/remote/encoding.py",
    "backends/remote/endpoint.py",
    "backends/remote/events.py",
    "backends/remote/openai_chat.py",
    "backends/remote/openai_completions.py",
    "backends/remote/options.py",
    "backends/remote/providers.py",
    "backends/remote/rate_limits.py",
    "backends/remote/response_formats.py",
    "backends/remote/retries.py",
    "backends/remote/server_errors.py",
    "backends/remote/tool_checks.py",
    "chat/builder.py",
    "chat/form_checks.py",
    "chat/messages.py",
    "chat/outcome.py",
    "chat/parsing.py",
    "chat/serialization.py",
    "chat/user_message.py",
    "checks.py",
    "config.py",
    "engine/blocks.py",
    "engine/scheduler.py",
    "engine/stops.py",
    "error_text.py",
    "events.py",
    "exceptions.py",
    "gguf/encodings.py",
    "gguf/settings.py",
    "gguf/tensor_names.py",
    "graph/record.py",
    "hooks/ending.py",
    "hooks/measures.py",
    "hooks/otel_messages.py",
    "hooks/prometheus.py",
    "json_values.py",
    "local_options.py",
    "mcp/listing.py",
    "mcp/results.py",
    "other_names.py",
    "router/failures.py",
    "router/health.py",
    "router/hedging.py",
    "router/limits.py",
    "router/policies.py",
    "router/status.py",
    "router/times.py",
    "sampling.py",
    "server/anthropic_body.py",
    "server/anthropic_messages.py",
    "server/asked.py",
    "server/encoders.py",
    "server/failures.py",
    "server/openai_chat.py",
    "server/openai_completions.py",
    "server/openai_embeddings.py",
    "server/openai_fields.py",
    "server/openai_responses.py",
    "server/openai_responses_body.py",
    "server/options.py",
    "server/reranking.py",
    "server/tool_use.py",
    "storage/histories.py",
    "storage/rows.py",
    "storage/tables.py",
    "storage/words.py",
    "structured/constraints.py",
    "structured/formats.py",
    "structured/instances.py",
    "structured/json_reading.py",
    "structured/keywords.py",
    "structured/partial.py",
    "structured/pydantic_types.py",
    "structured/references.py",
    "structured/schema_checks.py",
    "structured/type_schemas.py",
    "structured/values.py",
    "tokenizer/gguf_vocabulary.py",
    "tokenizer/gguf_words.py",
    "types.py",
    "urls.py",
]
WITHOUT_FOLDERS = ["backends/local", "engine", "graph", "models"]  # they ask the ModelSource
IMPURE_MODULES = {"asyncio", "os", "pathlib", "socket", "subprocess", "threading", "time"}


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full"
            module = node.module or ""
            names |= {f"talu.{a.name}" for a in node.names} if module == "talu" else {module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_files(path: Path) -> set[Path]:
    """The files of talu that a file imports, also for type annotations only."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            places = [SRC.parent.joinpath(*node.module.split("."))]
            places += [places[0] / alias.name for alias in node.names]
            files = {place.with_suffix(".py") for place in places} & set(FILES)
            found |= files or {places[0] / "__init__.py"} & set(FILES)
        elif isinstance(node, ast.Import):
            names = [SRC.parent.joinpath(*alias.name.split(".")) for alias in node.names]
            found |= {name.with_suffix(".py") for name in names} & set(FILES)
    return found


def cycle(imports: dict[Path, set[Path]], path: Path) -> list[Path]:
    """A cycle of imports from a file back to itself; empty when there is none."""
    ways = [[path]]
    seen: set[Path] = set()
    for way in ways:
        for imported in imports[way[-1]] - seen:
            if imported == path:
                return [*way, path]
            seen.add(imported)
            ways.append([*way, imported])
    return []


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_in_one_direction(path: Path) -> None:
    part = path.relative_to(SRC).parts[0].removesuffix(".py")
    imported = {m.split(".")[1] for m in imported_modules(path) if m.startswith("talu.")}
    assert imported - {part} - LEAVES - MAY_IMPORT.get(part, set()) == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_third_party_package_is_imported_only_in_its_place(path: Path) -> None:
    packages = {m.split(".")[0] for m in imported_modules(path)} & THIRD_PARTY_HOME.keys()
    name = name_of(path)
    strays = {
        p
        for p in packages
        if not any(name == h or name.startswith(h + "/") for h in THIRD_PARTY_HOME[p])
    }
    assert strays == set()


def test_no_file_imports_itself_indirectly_even_for_type_annotations() -> None:
    imports = {path: imported_files(path) for path in FILES}
    cycles = [cycle(imports, path) for path in FILES]
    assert [[name_of(path) for path in way] for way in cycles if way] == []


@pytest.mark.parametrize("name", PURE)
def test_a_pure_file_has_no_side_effects(name: str) -> None:
    imported = {m.split(".")[0] for m in imported_modules(SRC / name)}
    assert imported & IMPURE_MODULES == set()


@pytest.mark.parametrize("part", WITHOUT_FOLDERS)
def test_parts_below_the_source_of_a_model_know_no_paths(part: str) -> None:
    files = [path for path in FILES if name_of(path).startswith(part + "/")]
    found = {name_of(path) for path in files if "pathlib" in imported_modules(path)}
    # /proc, and files that talu writes
    own = {"engine/budget.py", "engine/machine.py", "engine/prefix_files.py"}
    assert found - own == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_grows_beyond_six_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600
