#!/usr/bin/python3
"""conmon, called as CRI-O calls it (internal/oci/runtime_oci.go), and its attach socket.

usage: conmon.py create|exec|attach ...; what conmon reports is printed. Must not call the runtime itself.
"""
import json
import os
import socket
import subprocess
import sys

RUN = "/run/conmon-test"


def pipe(name, environment):
    """A pipe whose end for conmon is named in its environment."""
    parent, child = os.pipe() if name == "_OCI_SYNCPIPE" else reversed(os.pipe())
    os.set_inheritable(child, True)
    environment[name] = str(child)
    return parent, child


def start(arguments, begin=True):
    """Runs conmon to the moment when it has left us, and returns what it says then and later."""
    environment = dict(os.environ)
    sync, theirs = pipe("_OCI_SYNCPIPE", environment)
    ours, waits = pipe("_OCI_STARTPIPE", environment)
    process = subprocess.Popen(["conmon"] + arguments, env=environment, close_fds=False)
    os.close(theirs)
    os.close(waits)
    # CRI-O moves conmon to its cgroup now, and lets it go on.
    os.write(ours, b"x")
    os.close(ours)
    process.wait()
    return os.fdopen(sync)


def arguments(name, runtime, *more):
    return ["-b", f"{RUN}/{name}", "-c", name, "-u", name, "-n", name, "-r", runtime, "--log-level", "info",
            "--socket-dir-path", f"{RUN}/sockets", "--runtime-arg", f"--root={RUN}/state", *more]


def create(runtime, name, *more):
    os.makedirs(f"{RUN}/persist/{name}", exist_ok=True)
    with start(arguments(name, runtime, "--exit-dir", f"{RUN}/exits", "--persist-dir", f"{RUN}/persist/{name}",
                         "-l", f"k8s-file:{RUN}/{name}.log", "-p", f"{RUN}/{name}.pid",
                         "-P", f"{RUN}/{name}.conmon", *more)) as said:
        report(said.readline())


def execute(runtime, name, seconds, process):
    """ExecSync: the streams go to a log, the exit code comes on the pipe."""
    with start(arguments(name, runtime, "-e", "-l", f"k8s-file:{RUN}/exec.log", "-p", f"{RUN}/exec.pid", "-T", seconds,
                         "--exec-process-spec", process)) as said:
        line = json.loads(said.readline() or "{}")
    print("exit code", line.get("exit_code"), line.get("message", ""))
    if os.path.exists(f"{RUN}/exec.log"):
        with open(f"{RUN}/exec.log") as log:
            for line in log:
                _, stream, _, text = line.split(" ", 3)
                print(stream, text, end="")
        os.remove(f"{RUN}/exec.log")


def report(line):
    line = json.loads(line or '{ "message": "nothing was said" }')
    number = line.get("pid", line.get("data", -1))
    print("made" if number > 0 else f"not made: {line.get('message', '')}")
    if number <= 0:
        sys.exit(1)


def attach(name, text, until):
    """Frames: the first byte is the stream, 2 or 3."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(250)
        client.connect(f"{RUN}/sockets/{name}/attach")
        client.send(text.encode().decode("unicode_escape").encode())
        heard = b""
        while until.encode() not in heard:
            frame = client.recv(8193)
            if not frame:
                break
            heard += frame[1:]
    print(heard.decode().replace("\r", ""), end="")


def main(verb, *words):
    {"create": create, "exec": execute, "attach": attach}[verb](*words)


main(*sys.argv[1:])
