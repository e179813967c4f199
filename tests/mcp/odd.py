"""A server that answers as it is told: ``python odd.py '{"tools/list": {"tools": []}}'``.

A dictionary is a result. A text is printed as it is; a list is a text after which the program ends.
``ID`` stands for the request's, and ``LONG`` for a long text. Without an entry the handshake is
answered, and nothing else.
"""

import json
import sys

HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "odd", "version": "1"},
}
UNKNOWN = '{"jsonrpc":"2.0","id":ID,"error":{"code":-32601,"message":"unknown"}}'

answers = {"server/discover": UNKNOWN, "initialize": HANDSHAKE} | json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    answer = answers.get(request["method"])
    if isinstance(answer, dict):
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer})
    ends = isinstance(answer, list)
    if answer is not None:
        text = answer[0] if ends else answer
        text = text.replace("LONG", "x" * 100_001)
        sys.stdout.write(text.replace("ID", str(request.get("id"))) + "\n")
        sys.stdout.flush()
    if ends:
        break
