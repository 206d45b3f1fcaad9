"""The streams of a CRI server, as a kubelet's clients use them: a WebSocket (RFC 6455) with Kubernetes' remote command
protocol, in which the first byte of a message says which stream it is of. Must not know what runs at the other end.
"""
import base64
import json
import os
import socket
import struct
import sys
import urllib.parse

# The fifth has a word for the end of standard input, which an older server does not know.
PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


class Stream:
    def __init__(self, url):
        url = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=280)
        self.ask(url)

    def ask(self, url):
        path = url.path + ("?" + url.query if url.query else "")
        key = base64.b64encode(os.urandom(16)).decode()
        head = [f"GET {path} HTTP/1.1", f"Host: {url.netloc}", "Connection: Upgrade", "Upgrade: websocket",
                f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Origin: http://{url.netloc}",
                "Sec-WebSocket-Protocol: " + ", ".join(PROTOCOLS)]
        self.socket.sendall("\r\n".join(head + ["", ""]).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                sys.exit(f"no stream: {answer.decode()}")
            answer += byte
        status, *lines = answer.decode().split("\r\n")
        if " 101 " not in status + " ":
            sys.exit(f"no stream: {status}")
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        self.protocol = headers.get("sec-websocket-protocol", "")

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def send(self, channel, data, kind=2):
        data = bytes([channel]) + data if kind == 2 else data
        length = len(data)
        head = bytes([128 | kind])
        head += bytes([128 | length]) if length < 126 else bytes([128 | 126]) + struct.pack(">H", length)
        mask = os.urandom(4)
        self.socket.sendall(head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(data)))

    def messages(self):
        """Channel and bytes, until the other end closes."""
        whole = b""
        while True:
            try:
                first, length = self.exactly(2)
                if length == 126:
                    length = struct.unpack(">H", self.exactly(2))[0]
                elif length == 127:
                    length = struct.unpack(">Q", self.exactly(8))[0]
                data = self.exactly(length)
            except (EOFError, ConnectionResetError):
                return
            kind = first & 15
            if kind == 8:
                return
            if kind == 9:
                self.send(0, data, 10)
                continue
            whole += data if kind < 3 else b""
            if first & 128 and whole:
                yield whole[0], whole[1:]
                whole = b""

    def close_input(self):
        if self.protocol == PROTOCOLS[0]:
            self.send(CLOSE, bytes([STDIN]))

    def resize(self, columns, rows):
        self.send(RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())


def talk(url, about):
    """Says what `about` has as `input` when it has heard its `after`, prints what comes, line by line with the name of
    its stream, and returns the exit code of the other end. `leave`: hangs up when it has heard that."""
    stream = Stream(url)
    if "size" in about:
        stream.resize(*about["size"])
    heard, said, code = {STDOUT: b"", STDERR: b""}, False, 0
    after, leave = about.get("after", "").encode(), about.get("leave")

    def say():
        if about.get("input"):
            stream.send(STDIN, about["input"].encode())
        if about.get("end"):
            stream.close_input()

    if not after:
        say()
        said = True
    for channel, data in stream.messages():
        if channel == ERROR and data:
            status = json.loads(data)
            if status.get("status") != "Success":
                causes = (status.get("details") or {}).get("causes") or []
                codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
                code = int(codes[0]) if codes else sys.exit(status.get("message", "failed"))
        if channel not in heard:
            continue
        heard[channel] += data
        if not said and after in heard[STDOUT]:
            say()
            said = True
        if leave and leave.encode() in heard[STDOUT]:
            break
    stream.socket.close()
    for channel, name in ((STDOUT, "out"), (STDERR, "err")):
        for line in heard[channel].decode().replace("\r", "").splitlines():
            print(name, line)
    return code
