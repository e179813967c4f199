"""A server with OpenAI's protocol that answers from memory, in a process of its own.

It sends each token in a chunk of its own, as fast as it can or at the pace of a model, and can make
some requests wait for their first token.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from itertools import count
from typing import Any

MODEL = "fast"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def words(number: int) -> list[str]:
    """The tokens of each answer."""
    return [f" word{place}" for place in range(number)]


def chunks(number: int) -> list[bytes]:
    """The events of each answer, as chunks of HTTP."""

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    def event(choices: list[Any], **more: Any) -> bytes:
        about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
        value = {**about, "model": MODEL, "choices": choices, **more}
        return chunk(f"data: {json.dumps(value)}\n\n".encode())

    def delta(content: str, reason: str | None = None) -> list[Any]:
        change = {"content": content} if content else {}
        return [{"index": 0, "delta": change, "finish_reason": reason}]

    usage = {"prompt_tokens": 8, "completion_tokens": number, "total_tokens": 8 + number}
    last = [event(delta("", "stop")), event([], usage=usage), chunk(b"data: [DONE]\n\n")]
    return [*(event(delta(word)) for word in words(number)), *last, b"0\r\n\r\n"]


def length_of(head: bytes) -> int:
    """The length of a request's body."""
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0])


async def serve(tokens: int, pause: float, stall: float, every: int) -> None:
    """Serve answers for ever.

    Args:
        tokens: of an answer.
        pause: seconds before each token.
        stall: seconds that some requests wait in addition.
        every: which requests: those with a number that it divides; 0 for none.
    """
    parts, numbers = chunks(tokens), count(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.lower().split(b"\r\n")
                (length,) = [
                    int(each[15:]) for each in lines if each.startswith(b"content-length:")
                ]
                await reader.readexactly(length)
                if every and next(numbers) % every == 0:
                    await asyncio.sleep(stall)
                writer.write(HEAD)
                for part in parts:
                    if pause:
                        await asyncio.sleep(pause)
                    writer.write(part)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def started(
    tokens: int, pause: float = 0.0, stall: float = 0.0, every: int = 0
) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address; see ``serve``."""
    values = [str(value) for value in (tokens, pause, stall, every)]
    command = [sys.executable, __file__, *values]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"


def main() -> None:
    """Command line of the server's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=int)
    parser.add_argument("pause", type=float)
    parser.add_argument("stall", type=float)
    parser.add_argument("every", type=int)
    given = parser.parse_args()
    asyncio.run(serve(given.tokens, given.pause, given.stall, given.every))


if __name__ == "__main__":
    main()
