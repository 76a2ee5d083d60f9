"""The tutorials: each runs as it stands, and prints what stands in it."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import copies
import pytest
from test_docs import script

session = script("session")
LOADED = (
    "torch.nn.utils.prune",
    "pai_cli.*",
    "scipy.io",
    "sklearn.datasets",
    "transformers.models.llama.modeling_llama",
)

PROGRAM = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps(["{name}", sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [b"x"], [0, 1, 2])
server.sendall(asked + b"\\n")
os._exit(server.recv(1)[0])
"""


def answer(connection: socket.socket) -> None:
    """Be one program for a shell: with its streams, as a copy of a process in which everything is loaded."""
    with connection, connection.makefile() as stream:
        _, (reads, *into), *_ = socket.recv_fds(connection, 1, 3)
        name, words, where, environment = json.loads(stream.readline())
        module = {} if name == "pai" else {"module": words.pop(0).removesuffix(".py")}
        begun = copies.begin(words, of=LOADED, cwd=Path(where), into=tuple(into), reads=reads, **module, **environment)
        for one in (reads, *into):
            os.close(one)
        connection.sendall(bytes([begun.finish().status & 255]))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """A folder with `pai` and `python` for a shell, quick to start."""
    with socket.socket(socket.AF_UNIX) as server:
        address = str(tmp_path / "server")
        server.bind(address)
        server.listen()

        def serve() -> None:
            with suppress(OSError):  # where it is shut down
                while asked := server.accept()[0]:
                    threading.Thread(target=answer, args=(asked,), daemon=True).start()

        serving = threading.Thread(target=serve)
        serving.start()
        for name in ("pai", "python"):
            (tmp_path / name).write_text(PROGRAM.format(python=sys.executable, address=address, name=name))
            (tmp_path / name).chmod(0o755)
        yield tmp_path
        server.shutdown(socket.SHUT_RDWR)
        serving.join()


@pytest.mark.skipif(sys.platform != "linux", reason="bash, and copies of a process that has loaded torch")
@pytest.mark.parametrize("page", session.TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_prints_what_it_says(page: Path, programs: Path) -> None:
    found = page.read_text(encoding="utf-8")
    assert session.filled(found, programs)[0] == found


PAGE = """
```sh title="say.sh"
echo "$1"
```

```console
$ for word in one two; do
>   sh say.sh $word
> done
WRONG
$ sh -c 'echo no >&2; exit 3'
$ echo $?
```
"""


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_a_session_is_filled_in(tmp_path: Path) -> None:
    filled, picture = session.filled(PAGE, tmp_path)
    assert filled == PAGE.replace("WRONG", "one\ntwo").replace("exit 3'", "exit 3'\nno").replace("$?", "$?\n3")
    assert picture == b""
    with pytest.raises(RuntimeError, match="false: exit 1"):
        session.filled("```console\n$ false\n$ true\n```\n", tmp_path)
