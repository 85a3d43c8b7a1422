"""A WebSocket client that executes one Autobahn case: a fuzzer, so it can send what no proper client would.

It is strict about what it receives (reserved bits, masks, lengths in their shortest form, control frames, UTF-8, close
codes), and keeps the attributes by which the definitions judge a closing: `closedByMe`, `failedByMe`, `droppedByMe`,
`wasClean`, `remoteCloseCode`. The camelCase names are the interface that the definitions call.

Called by `run.py`, one peer per case. Knows RFC 6455 and nothing of the gateway.
"""

import asyncio
import base64
import hashlib
import os
import socket
import struct
from types import SimpleNamespace

from suite import WebSocketProtocol as State

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ALLOWED_CLOSE_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
#: Seconds the server has to answer a close frame, and then to close the TCP connection.
CLOSE_TIMEOUT = 10.0
#: The cases' own deadlines are for an idle machine. These only widen how long a right answer may take.
KILL_SLACK, CLOSE_SLACK = 10.0, 3.0


class Peer:
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007

    def __init__(self, host, port, path):
        self.address, self.path = (host, port), path
        self.factory = SimpleNamespace(isServer=False)
        self.state = State.STATE_CONNECTING
        self.connectionWasOpen = self.closedByMe = self.failedByMe = self.droppedByMe = self.wasClean = False
        self.remoteCloseCode = self.localCloseCode = self.localCloseReason = None
        self.violation = None
        self.createWirelog = True
        self.autoFragmentSize = 0
        self.txFrameStats = {}
        self.timers = []
        self.outgoing = asyncio.Queue()
        self.buffer = bytearray()
        self.message = None  # (opcode, bytearray) of an unfinished message
        self.sent = bytearray()  # payload of the data message sent last, to compare an echo's content
        self.differs = False

    # -- the run ---------------------------------------------------------------------------------------------------

    async def execute(self, case_class):
        """Runs the case to the end of its connection and returns it, judged."""
        self.case = case_class(self)
        self.reader, self.writer = await asyncio.open_connection(*self.address, limit=1 << 20)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender = asyncio.create_task(self.send_loop())
        try:
            await self.handshake()
            self.state, self.connectionWasOpen = State.STATE_OPEN, True
            self.case.onOpen()
            await self.receive_loop()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a reset is one of the ways in which a connection ends; the case judges what came before
        finally:
            self.state = State.STATE_CLOSED
            for timer in self.timers:
                timer.cancel()
            sender.cancel()
            self.writer.transport.abort()
        self.case.onConnectionLost(self.failedByMe)
        return self.case

    async def handshake(self):
        key = base64.b64encode(os.urandom(16)).decode()
        host = "%s:%d" % self.address
        self.writer.write(
            f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        if not head[0].startswith("HTTP/1.1 101") or headers.get("sec-websocket-accept") != accept:
            raise ConnectionError(f"handshake refused: {head[0]}")

    async def send_loop(self):
        while True:
            chunk, pause = await self.outgoing.get()
            self.writer.write(chunk)
            if pause:
                await asyncio.sleep(0)
            await self.writer.drain()

    async def receive_loop(self):
        while data := await self.reader.read(1 << 20):
            self.buffer += data
            while self.state != State.STATE_CLOSED and self.take_frame():
                pass
            if self.state == State.STATE_CLOSED:
                return

    # -- receiving -------------------------------------------------------------------------------------------------

    def take_frame(self):
        """Consumes one frame if the buffer holds a whole one."""
        buffer = self.buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        fin, opcode, length, offset = bool(first & 0x80), first & 0x0F, second & 0x7F, 2
        if length == 126:
            offset = 4
        elif length == 127:
            offset = 10
        if len(buffer) < offset:
            return False
        announced, length = length, length if offset == 2 else int.from_bytes(buffer[2:offset], "big")
        wrong = self.header_fault(first, second, fin, opcode, announced, length)
        if wrong:
            self.violate(1002, wrong)
            buffer.clear()
            return False
        if len(buffer) < offset + length:
            return False
        payload = bytes(memoryview(buffer)[offset : offset + length])
        del buffer[: offset + length]
        self.take_payload(fin, opcode, payload)
        return True

    def header_fault(self, first, second, fin, opcode, announced, length):
        if first & 0x70:
            return "reserved bits set"
        if second & 0x80:
            return "masked server frame"
        if (announced == 126 and length < 126) or (announced == 127 and (length < 65536 or length >> 63)):
            return "length not in its shortest form"
        if opcode >= 8:
            if opcode > 10 or not fin or announced > 125 or (opcode == 8 and length == 1):
                return "bad control frame"
        elif opcode > 2:
            return "reserved opcode"
        elif (opcode == 0) != (self.message is not None):
            return "continuation where a message begins" if opcode == 0 else "message within a message"
        return None

    def take_payload(self, fin, opcode, payload):
        if opcode == 8:
            self.take_close(payload)
        elif opcode == 9:
            self.frame(10, payload)
        elif opcode == 10:
            if self.state == State.STATE_OPEN:
                self.case.onPong(payload.decode("latin-1"))
        else:
            if self.message is None:
                self.message = (opcode, bytearray())
            self.message[1].extend(payload)
            if fin:
                (kind, body), self.message = self.message, None
                self.take_message(kind, bytes(body))

    def take_message(self, kind, body):
        if kind == 1:
            try:
                body.decode("utf-8")
            except UnicodeDecodeError:
                return self.violate(1007, "text is not UTF-8")
        # As in Autobahn: what arrives after our close frame is no longer an event.
        if self.state == State.STATE_OPEN:
            self.differs = self.differs or body != self.sent
            self.case.onMessage(body.decode("latin-1"), kind == 2)
        return None

    def take_close(self, payload):
        code = struct.unpack(">H", payload[:2])[0] if payload else None
        self.remoteCloseCode = code
        if code is not None and not (3000 <= code <= 4999 or code in ALLOWED_CLOSE_CODES):
            return self.violate(1002, f"close code {code} must not be sent")
        try:
            payload[2:].decode("utf-8")
        except UnicodeDecodeError:
            return self.violate(1007, "close reason is not UTF-8")
        self.wasClean = True
        if self.state == State.STATE_OPEN:
            self.close_frame(1000, "", reply=True)
        self.later(CLOSE_TIMEOUT, self.drop_unclean)
        return None

    def violate(self, code, words):
        self.violation = words
        self.failConnection(code)

    # -- what the definitions call ---------------------------------------------------------------------------------

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        body = payload.encode("latin-1")
        if payload_len is not None:
            body = (body * (payload_len // max(len(body), 1) + 1))[:payload_len] if body else b""
        self.frame(opcode, body, fin, rsv, chopsize)

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False):
        body = payload.encode("latin-1")
        size = fragmentSize or self.autoFragmentSize or max(len(body), 1)
        opcode = 2 if isBinary else 1
        for start in range(0, max(len(body), 1), size):
            self.frame(opcode if start == 0 else 0, body[start : start + size], start + size >= len(body))

    def beginMessage(self, isBinary=False):
        self.streaming = 2 if isBinary else 1

    def beginMessageFrame(self, length):
        self.stream_mask, self.stream_at = os.urandom(4), 0
        self.write(header(self.streaming, length, False, 0) + self.stream_mask)

    def sendMessageFrameData(self, payload, sync=False):
        turn = self.stream_at % 4
        self.write(masked(payload.encode("latin-1"), self.stream_mask[turn:] + self.stream_mask[:turn]))
        self.stream_at += len(payload)

    def endMessage(self):
        self.frame(0, b"")

    def sendClose(self, code=None, reason=None):
        self.close_frame(code, reason or "")

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        self.close_frame(code, reasonUtf8 or "", isReply)

    def continueLater(self, delay, function, tag=None):
        self.later(delay, function)

    def killAfter(self, delay):
        self.later(delay * KILL_SLACK, self.failConnection)

    def closeAfter(self, delay):
        self.later(delay * CLOSE_SLACK, self.sendClose)

    def enableWirelog(self, enable):
        """Part of the interface; there is no wire log."""

    def failConnection(self, code=1001):
        if self.state == State.STATE_CLOSED:
            return
        self.failedByMe = True
        if self.state == State.STATE_CLOSING:
            self.drop()
        else:
            self.close_frame(code, "")

    # -- sending ---------------------------------------------------------------------------------------------------

    def frame(self, opcode, body, fin=True, rsv=0, chop=None):
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        if opcode in (1, 2):
            self.sent = bytearray()
        if opcode in (0, 1, 2):
            self.sent += body
        mask = os.urandom(4)
        self.write(header(opcode, len(body), fin, rsv) + mask + masked(body, mask), chop)

    def write(self, data, chop=None):
        if chop is None:
            return self.outgoing.put_nowait((data, False))
        for start in range(0, len(data), chop):
            self.outgoing.put_nowait((data[start : start + chop], True))
        return None

    def close_frame(self, code, reason, reply=False):
        if self.state != State.STATE_OPEN:
            return
        body = (b"" if code is None else struct.pack(">H", code)) + reason.encode("latin-1")
        self.frame(8, body)
        self.state = State.STATE_CLOSING
        self.closedByMe = not reply
        self.localCloseCode, self.localCloseReason = code, reason
        if not reply:
            self.later(CLOSE_TIMEOUT, lambda: self.wasClean or self.drop_unclean())

    def drop_unclean(self):
        self.wasClean = False
        self.drop()

    def drop(self):
        if self.state != State.STATE_CLOSED:
            self.droppedByMe = True
            self.state = State.STATE_CLOSED
            self.writer.transport.abort()

    def later(self, delay, function):
        self.timers.append(asyncio.get_running_loop().call_later(delay, self.unless_closed, function))

    def unless_closed(self, function):
        if self.state != State.STATE_CLOSED:
            function()


def header(opcode, length, fin, rsv):
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    if length < 126:
        return struct.pack(">BB", first, 0x80 | length)
    if length < 65536:
        return struct.pack(">BBH", first, 0x80 | 126, length)
    return struct.pack(">BBQ", first, 0x80 | 127, length)


def masked(body, mask):
    """XOR over whole integers: a byte loop would take seconds on 16 MiB."""
    out, step = [], 1 << 16  # a multiple of 4, so every slice starts at the mask's first byte
    for start in range(0, len(body), step):
        part = body[start : start + step]
        pad = (mask * (len(part) // 4 + 1))[: len(part)]
        out.append((int.from_bytes(part, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(part), "big"))
    return b"".join(out)
