#!/usr/bin/python3
"""A client of a CRI server, as small as the cases of cri.sh need: gRPC by grpcio, messages by hand.

usage: cri.py SOCKET VERB ARGUMENT...; what is answered is printed, in words that do not change from run to run.
Messages are nested lists of (field, value); the fields are those of k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.
"""
import json
import sys

import grpc

import stream

RUNNING = {0: "created", 1: "running", 2: "exited", 3: "unknown"}
NAMESPACE = {"pod": 0, "container": 1, "node": 2, "target": 3}


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def write(message):
    out = b""
    for field, value in message:
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, int):
            out += varint(field << 3) + varint(value)
            continue
        if isinstance(value, list):
            value = write(value)
        elif isinstance(value, str):
            value = value.encode()
        out += varint(field << 3 | 2) + varint(len(value)) + value
    return out


def read(data):
    """Field to list of values."""
    found, at = {}, 0

    def number():
        nonlocal at
        shift = value = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            length = {1: 8, 5: 4}.get(key & 7)
            length = number() if length is None else length
            value = data[at:at + length]
            at += length
        found.setdefault(key >> 3, []).append(value)
    return found


def first(message, *path):
    for field in path[:-1]:
        message = read(message.get(field, [b""])[0])
    return message.get(path[-1], [0])[0]


def pairs(field, table):
    return [(field, [(1, key), (2, value)]) for key, value in table.items()]


class Client:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel("unix:" + socket)

    def call(self, method, message, service="RuntimeService"):
        ask = self.channel.unary_unary(f"/runtime.v1.{service}/{method}")
        return read(ask(write(message), timeout=280))


def sandbox(name, about):
    linux = [(1, about["parent"]), (2, [(1, namespaces(about))])]
    return [(1, [(1, name), (2, name), (3, "default"), (4, 0)]), (2, about.get("hostname", "")),
            (3, about["logs"]), (8, linux)]


def namespaces(about):
    options = [(1, NAMESPACE[about.get("network", "node")]), (2, NAMESPACE[about.get("pid", "container")])]
    if "userns" in about:
        ids = [(1, about["userns"]), (2, 0), (3, 65536)]
        options.append((5, [(1, 0), (2, ids), (3, ids)]))
    return options


def security(about):
    config = [(1, [(2, name) for name in about["drop"]])] if "drop" in about else []
    if "user" in about:
        config += [(5, [(1, about["user"])]), (12, [(1, about["user"])])]
    config += [(7, about.get("readonly", False)), (11, about.get("no_new_privs", False))]
    # Of a kind: the runtime's default is 0, none is 1.
    return config + [(15, [(1, about.get("seccomp", 1))])]


def container(name, image, command, about):
    resources = [(1, about.get("period", 0)), (2, about.get("quota", 0)), (3, about.get("shares", 0)),
                 (4, about.get("memory", 0)), (5, about.get("oom", 0)), (6, about.get("cpus", ""))]
    resources += [(8, [(1, size), (2, limit)]) for size, limit in about.get("hugepages", {}).items()]
    resources += pairs(9, about.get("unified", {}))
    linux = [(1, resources), (2, [(3, namespaces(about))] + security(about))]
    config = [(1, [(1, name), (2, 0)]), (2, [(1, image)])]
    config += [(3, word) for word in command]
    config += pairs(6, about.get("env", {}))
    config += [(7, [(1, inside), (2, outside)]) for outside, inside in about.get("mounts", {}).items()]
    return config + [(11, name + ".log"), (12, about.get("stdin", False)),
                     (13, about.get("stdin_once", False)), (14, about.get("tty", False)), (15, linux)]


def main(socket, verb, *args):
    client = Client(socket)
    ask = client.call
    if verb == "version":
        ask("Version", [])
        print("a version")
    elif verb == "ready":
        conditions = ask("Status", []).get(1, [b""])[0]
        for condition in read(conditions).get(1, []):
            print(first(read(condition), 1).decode(), bool(first(read(condition), 2)))
    elif verb == "pod":
        name, handler, about = args
        answer = ask("RunPodSandbox", [(1, sandbox(name, json.loads(about))), (2, handler)])
        print(first(answer, 1).decode())
    elif verb == "create":
        pod, pod_name, name, image, about, *command = args
        about = json.loads(about)
        message = [(1, pod), (2, container(name, image, command, about)), (3, sandbox(pod_name, about))]
        print(first(ask("CreateContainer", message), 1).decode())
    elif verb == "start":
        ask("StartContainer", [(1, args[0])])
    elif verb == "status":
        status = ask("ContainerStatus", [(1, args[0])])
        reason = first(status, 1, 10)
        print(RUNNING[first(status, 1, 3)], first(status, 1, 7), reason.decode() if reason else "")
    elif verb == "exec":
        seconds, name, *command = args
        answer = ask("ExecSync", [(1, name)] + [(2, word) for word in command] + [(3, int(seconds))])
        sys.stdout.write((first(answer, 1) or b"").decode())
        sys.stderr.write((first(answer, 2) or b"").decode())
        code = first(answer, 3)
        sys.exit(code)
    elif verb == "stream":
        name, about, *command = args
        about = json.loads(about)
        streams = [("stdin", False), ("stdout", True), ("stderr", not about.get("tty"))]
        stdin, stdout, stderr = [about.get(name, default) for name, default in streams]
        if command:
            message = [(1, name)] + [(2, word) for word in command]
            message += [(3, about.get("tty", False)), (4, stdin), (5, stdout), (6, stderr)]
            answer = ask("Exec", message)
        else:
            answer = ask("Attach", [(1, name), (2, stdin), (3, about.get("tty", False)), (4, stdout), (5, stderr)])
        sys.exit(stream.talk(first(answer, 1).decode(), about))
    elif verb == "update":
        ask("UpdateContainerResources", [(1, args[0]), (2, [(2, int(args[1])), (4, int(args[2]))])])
    elif verb == "stats":
        stats = read(ask("ContainerStats", [(1, args[0])])[1][0])
        print("CPU", first(stats, 2, 2, 1) > 0, "memory", first(stats, 3, 2, 1) > 0)
    elif verb == "list":
        listed = ask("ListContainers", [])
        for one in listed.get(1, []):
            print(first(read(one), 3, 1).decode(), RUNNING[first(read(one), 6)])
    elif verb == "pods":
        for one in ask("ListPodSandbox", []).get(1, []):
            print(first(read(one), 2, 1).decode(), ["ready", "not ready"][first(read(one), 3)])
    elif verb == "stop":
        ask("StopContainer", [(1, args[0]), (2, int(args[1]))])
    elif verb == "rm":
        ask("RemoveContainer", [(1, args[0])])
    elif verb == "stop-pod":
        ask("StopPodSandbox", [(1, args[0])])
    elif verb == "rm-pod":
        ask("RemovePodSandbox", [(1, args[0])])
    else:
        sys.exit(f"no such verb: {verb}")


try:
    main(*sys.argv[1:])
except grpc.RpcError as why:
    print(f"{why.code().name}: {why.details()}")
    sys.exit(1)
