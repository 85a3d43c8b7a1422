"""The Autobahn case definitions, made loadable.

`autobahntestsuite` 25.10.1 on PyPI installs on Python 3, but holds Python 2 sources (implicit relative imports, print
statements, byte strings), so its own runner `wstest` does not start. What makes it valuable, the definition of each
case (what is sent, which events and which close are expected), is a few lines per case in a simple dialect. This
module copies those files into a cache directory, translates the dialect mechanically, and imports them. The judgement
(`Case.onConnectionLost`) is Autobahn's too. The client that executes the cases is `peer.py`.

Strings: a Python 2 string is a sequence of bytes. The sources are read as Latin-1, so that every character of a
literal is one byte, and the peer converts at the socket.

Called by `run.py`. Knows nothing of the gateway.
"""

import builtins
import importlib.util
import re
import sys
import types
from pathlib import Path

#: Compression (permessage-deflate) is not offered by the gateway; 9.9.1 needs twisted, and Autobahn left it out itself.
EXCLUDED = ("case12_x_x", "Case12_X_X", "Case13_X_X", "case9_9_1")

HEX = '''
import binascii


def b2a_hex(text):
    return binascii.b2a_hex(text.encode("latin-1")).decode("ascii")
'''

REWRITES = [
    (re.compile(r"^(\s*)print\b.*$", re.M), r"\1pass"),
    (re.compile(r"^import binascii$", re.M), "import py2_hex as binascii"),
    (re.compile(r"\(object, Case, \)"), "(Case,)"),
    (re.compile(r"\bxrange\b"), "range"),
    (re.compile(r"\.tostring\(\)"), '.tobytes().decode("latin-1")'),
    (re.compile(r"len\(self\.payload\) / self\.p\.autoFragmentSize"), "len(self.payload) // self.p.autoFragmentSize"),
    # Pickles of equal objects may differ in Python 3.
    (re.compile(r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)"), "obj1 == obj2"),
    (re.compile(r"^# coding=utf-8$", re.M), ""),
]


class Utf8Validator:
    """What the definitions need of autobahn's class of this name: whole strings, with the verdict in two parts."""

    def reset(self):
        """Nothing is kept between calls."""

    def validate(self, text):
        data = text.encode("latin-1")
        try:
            data.decode("utf-8")
            return True, True
        except UnicodeDecodeError as error:
            # A sequence cut short at the end is valid so far, but incomplete.
            return error.reason == "unexpected end of data", False


class WebSocketProtocol:
    """The states that a few cases look at."""

    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)


def load(cache: Path):
    """Returns the list of (case id, class) of every case but compression, in the suite's order."""
    spec = importlib.util.find_spec("autobahntestsuite")
    if spec is None:
        raise SystemExit("conformance: autobahntestsuite is not installed in this Python; run scripts/need.sh venv")
    source = Path(spec.submodule_search_locations[0]) / "case"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "py2_hex.py").write_text(HEX, encoding="ascii")
    for path in source.glob("case*.py"):
        if path.stem not in EXCLUDED:
            (cache / path.name).write_text(translate(path), encoding="latin-1")
    (cache / "all_cases.py").write_text(translate(source / "__init__.py"), encoding="latin-1")

    for name in ("autobahn", "autobahn.websocket", "autobahn.websocket.protocol", "autobahn.websocket.utf8validator"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["autobahn.websocket.protocol"].WebSocketProtocol = WebSocketProtocol
    sys.modules["autobahn.websocket.utf8validator"].Utf8Validator = Utf8Validator
    builtins.unichr = chr
    sys.path.insert(0, str(cache))
    import all_cases

    return [(klass.__name__.removeprefix("Case").replace("_", "."), klass) for klass in all_cases.Cases]


def translate(path: Path) -> str:
    text = path.read_text(encoding="latin-1")
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    lines = (line for line in text.splitlines() if not any(word in line for word in EXCLUDED))
    return "# coding=latin-1\n" + "\n".join(lines) + "\n"
