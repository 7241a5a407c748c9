"""A program that speaks MCP by hand, and misbehaves when asked to. Standard library only: it starts fast.

Its argument says how it begins: `legacy`, `modern`, `silent` (legacy, and does not answer what it does not
know), `rude` (one that ends at it), `slow` (legacy, after a while), `broken` (ends at once), or `stubborn`
(legacy, and ends neither at the end of its input nor at SIGTERM). Its methods are the functions below.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BEGIN = sys.argv[1]
held: list[Any] = []
heard: list[Any] = []


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def sleeper(**options: Any) -> int:
    return subprocess.Popen(["sleep", "600"], **options).pid


def initialize(params: Any, id: Any) -> Any:
    capabilities = {"logging": {}, "tasks": {"list": {}, "cancel": {}}, "tools": {"listChanged": True}}
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities,
        "serverInfo": {"name": "by hand", "version": "1"},
        "x-unknown": 2**70,
        "asked": params,
    }


def discover(params: Any, id: Any) -> Any:
    return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}}


def hold(params: Any, id: Any) -> Any:
    """Not answered before `release`, which answers in the reverse order."""
    held.append((id, params))


def release(params: Any, id: Any) -> Any:
    for held_id, held_params in reversed(held):
        meta = held_params.get("_meta", {})
        if "progressToken" in meta:
            say(
                method="notifications/progress",
                params={"progressToken": meta["progressToken"], "progress": 1},
            )
        say(id=held_id, result={"held": held_params})
    held.clear()
    return {}


def tell(params: Any, id: Any) -> Any:
    """Says `messages` as they are."""
    for message in params["messages"]:
        say(**message)
    return {}


def listen(params: Any, id: Any) -> Any:
    """A subscription that brings one change, and lives on."""
    meta = {"io.modelcontextprotocol/subscriptionId": id}
    say(method="notifications/subscriptions/acknowledged", params={"_meta": meta, "notifications": {}})
    say(method="notifications/tools/list_changed", params={"_meta": meta})


def garbage(params: Any, id: Any) -> Any:
    sys.stdout.write("Server listening on stdio...\n\n{not json}\n[1, 2]\n")
    return {}


def batch(params: Any, id: Any) -> Any:
    answer = {"jsonrpc": "2.0", "id": id, "result": {"in": "a batch"}}
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    sys.stdout.write(json.dumps([note, answer]) + "\n")
    sys.stdout.flush()


def long(params: Any, id: Any) -> Any:
    sys.stdout.write("x" * params["bytes"])
    sys.stdout.flush()
    time.sleep(600)


def flood(params: Any, id: Any) -> Any:
    line = json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}) + "\n"
    for _ in range(params["times"]):
        sys.stdout.write(line)
    sys.stdout.flush()
    return {}


def complain(params: Any, id: Any) -> Any:
    for number in range(params["lines"]):
        sys.stderr.write(f"line {number} {params.get('word', '')}\n")
    sys.stderr.flush()
    return {}


def deaf(params: Any, id: Any) -> Any:
    """Reads nothing any more."""
    time.sleep(600)


def crash(params: Any, id: Any) -> Any:
    sys.stderr.write("out of luck\n")
    os._exit(params.get("status", 3))


def shot(params: Any, id: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang_up(params: Any, id: Any) -> Any:
    """Closes its output, and lives on."""
    os.close(1)
    time.sleep(600)


def fork(params: Any, id: Any) -> Any:
    """Children: an ordinary one, one with a session of its own, and one whose parent has ended."""
    script = "sleep 600 > /dev/null & echo $!"
    orphan = subprocess.run(["setsid", "sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout
    return {"children": [sleeper(), sleeper(start_new_session=True), int(orphan)]}


def surroundings(params: Any, id: Any) -> Any:
    descriptors = []
    for number in range(3, 256):
        try:
            os.fstat(number)
            descriptors.append(number)
        except OSError:
            pass
    import resource

    return {
        "environment": dict(os.environ),
        "directory": str(Path.cwd()),
        "descriptors": descriptors,
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "pid": os.getpid(),
    }


METHODS: dict[str, Any] = {
    "initialize": initialize,
    "ping": lambda params, id: {},
    "heard": lambda params, id: {"heard": heard},
    "echo": lambda params, id: {"echo": params},
    "resources/subscribe": lambda params, id: {},
    "resources/unsubscribe": lambda params, id: {},
    "logging/setLevel": lambda params, id: {},
    "tools/call": lambda params, id: {"task": {"taskId": params["task"]}},
    "tasks/list": lambda params, id: {"tasks": ["of everybody"]},
    "subscriptions/listen": listen,
}
for function in (hold, release, tell, garbage, batch, long, flood, complain):
    METHODS[function.__name__] = function
for function in (deaf, crash, shot, hang_up, fork, surroundings):
    METHODS[function.__name__] = function
if BEGIN == "modern":
    del METHODS["initialize"]
    METHODS["server/discover"] = discover


def take(message: Any) -> None:
    heard.append(message)
    method, id = message.get("method"), message.get("id")
    if id is None or method is None:
        return
    if method not in METHODS:
        if BEGIN == "rude":
            sys.exit("expected initialize")
        if BEGIN != "silent":
            say(id=id, error={"code": -32601, "message": f"no {method}"})
        return
    result = METHODS[method](message.get("params", {}), id)
    if result is not None:
        say(id=id, result=result)


if BEGIN == "broken":
    sys.exit("no such module")
if BEGIN == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if BEGIN == "slow":
    time.sleep(0.5)
for line in sys.stdin:
    take(json.loads(line))
if BEGIN == "stubborn":
    time.sleep(600)
