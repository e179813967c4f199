"""Type checking of hooks: an override may use the classes of its client."""

from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]
OVERRIDES = '''
from talu import AsyncChat, Chat
from talu.chat import AsyncResponse, AsyncStreamingResponse, Response, StreamingResponse
from talu.config import GenerationConfig
from talu.hooks import Generation, Hook


class Blocking(Hook):
    """Every class that a client can hand in, by name."""

    def for_generation(self, generation: Generation) -> "Blocking":
        return self

    def on_generation_start(
        self,
        chat: Chat | AsyncChat | None,
        input_text: str,
        *,
        config: GenerationConfig | None = None,
    ) -> None:
        print(chat.session_id if chat is not None else input_text, config)

    def on_first_token(self, chat: Chat | AsyncChat | None, time_ms: float) -> None:
        print(time_ms)

    def on_generation_end(
        self,
        chat: Chat | AsyncChat | None,
        response: Response | StreamingResponse | AsyncResponse | AsyncStreamingResponse | None,
        *,
        error: BaseException | None = None,
    ) -> None:
        print(response.text if response is not None else error)


class Awaited(Hook):
    """Only the classes of one client, awaited."""

    async def on_generation_end(
        self,
        chat: AsyncChat | None,
        response: AsyncResponse | AsyncStreamingResponse | None,
        *,
        error: BaseException | None = None,
    ) -> None:
        print(response.usage if response is not None else error)


class Wrong(Hook):
    def on_first_token(self, chat: Chat | None, time_ms: str) -> None: ...
'''


def test_an_override_that_names_the_public_classes_passes_a_strict_check(tmp_path: Path) -> None:
    code = tmp_path / "overrides.py"
    code.write_text(OVERRIDES)
    options = [f"--cache-dir={ROOT / '.mypy_cache'}"]  # that of the check of all files
    found, failures, _ = api.run([f"--config-file={ROOT / 'pyproject.toml'}", *options, str(code)])
    errors = [line for line in found.splitlines() if ": error:" in line]
    assert failures == ""
    assert len(errors) == 1  # the checker does report errors
    assert 'Argument 2 of "on_first_token" is incompatible' in errors[0]
