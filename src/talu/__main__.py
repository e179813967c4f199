"""Starts the command line, for ``talu`` and ``python -m talu``, and prepares it for Ctrl-C.

It imports next to nothing. While the command line is loaded, and after it has ended, Ctrl-C ends
the process at once, with one line; in between, the command line handles it.
"""

import importlib
import os
import signal
import sys

__all__ = ["main"]

COMMAND_LINE = "talu.cli.main"


def main() -> None:
    """Run the command that the arguments of the process name."""
    obeys = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # ignored under nohup
    try:
        if obeys:
            signal.signal(signal.SIGINT, _end)
        run = importlib.import_module(COMMAND_LINE).run
        if obeys:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run(sys.argv[1:])
        if obeys:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:  # between two of these lines
        _end()
    sys.exit(status)


def _end(*_: object) -> None:
    os.write(2, b"talu: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
