# containerd with another runtime: what a client does with containers and tasks, one case after the other.
# shim.sh runs the same cases with jug's own shim.
. /run/engines/kit.sh

: "${with:=--runc-binary $RUNTIME}"
socket=/run/containerd-test/socket
mkdir /run/containerd-test
cat >/run/containerd-test/config.toml <<CONF
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
]
[grpc]
    address = "$socket"
[ttrpc]
    address = "$socket.ttrpc"
CONF

c() { timeout --foreground -k 5 "$PATIENCE" ctr -a $socket -n "$GROUP" "$@"; }
# shellcheck disable=SC2086  # flags
run() { c run $with "$@"; }
tasks() { c task ls | tail -n +2 | tr -s ' ' | cut -d' ' -f1,3 | sort; }
is() { [ "$(tasks | grep "^$1 ")" = "$1 $2" ]; }
# A program that ends with 3 at SIGTERM.
patient='trap "exit 3" TERM; while :; do sleep 0.1; done'
task() {
    local name=$1; shift
    run -d "$@" $image "$name" sh -c "$patient" && eventually is "$name" RUNNING
}
piped() { echo "through a pipe" | run --rm $image piped sh -c 'read line; echo $line'; }
on_a_terminal() { terminal "ctr -a $socket -n $GROUP $1"; }
first_pid() { c task ls | tr -s ' ' | awk -v name="$1" '$1 == name { print $2 }'; }
# The process numbers that the engine knows are those in the cgroup.
ps_is_the_cgroup() {
    local known; known=$(c task ps "$1" | awk 'NR > 1 { print $1 }' | sort)
    grep -q "^$(first_pid "$1")\$" <<<"$known" && echo "the first process is among them"
}
busy_metrics() {
    c task metrics "$1" | awk '
        $1 ~ /^memory\.usage(_in_bytes)?$/ { print "memory", ($2 > 0 && $2 < 30000000) }
        $1 ~ /^(cpuacct\.usage|cpu\.usage_usec)$/ { print "CPU", ($2 > 0 && $2 < 100000000000) }
        $1 == "pids.current" { print "processes", ($2 > 0 && $2 < 5) }' | sort
}
# ctr forwards signals: a foreground task ends by one that its client gets.
ends_by() {
    local client
    run --rm $image killed sleep 60 &
    client=$!
    eventually is killed RUNNING
    c task kill -s "$1" killed
    wait $client
}
events() { grep -oE "/tasks/$1" /run/containerd-test/events | sort | uniq -c | tr -s ' '; }

before
begin() {
    containerd --config /run/containerd-test/config.toml 2>>/run/containerd-test/log &
    daemon=$!
    eventually c version || { cat /run/containerd-test/log; exit 1; }
}
begin
ctr -a $socket -n "$GROUP" events >/run/containerd-test/events 2>&1 &
watcher=$!

it 'import' "$image.*exit 0\$" c image import $out/box.oci
it 'run' '^hello world'$'\n''exit 0$' run --rm $image a echo hello world
it 'run: standard input' '^through a pipe'$'\n''exit 0$' piped
it 'run: environment and directory' '^b /etc'$'\n''exit 0$' \
    run --rm --env A=b --cwd /etc $image a sh -c 'echo $A $(pwd)'
it 'run: exit code' 'exit 7$' run --rm $image a sh -c 'exit 7'
it 'run: a signal is 128 and its number' 'exit 137$' ends_by KILL
it 'run: a command that is missing' 'OCI runtime create failed: .*executable file not found in .PATH.*exit 1$' \
    run --rm $image a nosuch
it 'run: a path that is missing' 'OCI runtime create failed: .*no such file or directory.*exit 1$' \
    run --rm $image a /no/such
it 'run: a file that is no program' 'OCI runtime create failed: .*permission denied.*exit 1$' run --rm $image a /plain
it 'run: on a terminal' "$on_terminal" on_a_terminal "run $with -t --rm $image a sh -c '$ask'"
it 'run: a read-only root' 'Read-only file system.*exit 1$' run --rm --read-only $image a touch /x
mkdir -p /tmp/volume; echo inside >/tmp/volume/file
it 'run: a mount' '^inside'$'\n''exit 0$' \
    run --rm --mount type=bind,src=/tmp/volume,dst=/v,options=rbind:ro $image a cat /v/file
it 'run: capabilities' '^CapEff:.0000000000000400'$'\n''exit 0$' \
    run --rm --cap-drop CAP_CHOWN --cap-drop CAP_DAC_OVERRIDE --cap-drop CAP_FSETID --cap-drop CAP_FOWNER \
    --cap-drop CAP_MKNOD --cap-drop CAP_NET_RAW --cap-drop CAP_SETGID --cap-drop CAP_SETUID --cap-drop CAP_SETFCAP \
    --cap-drop CAP_SETPCAP --cap-drop CAP_SYS_CHROOT --cap-drop CAP_KILL --cap-drop CAP_AUDIT_WRITE \
    $image a grep CapEff /proc/self/status
it 'run: seccomp' '^Seccomp:.2'$'\n''exit 0$' run --rm --seccomp $image a grep -E '^Seccomp:' /proc/self/status
it 'run: privileged' '^Seccomp:.0'$'\n''exit 0$' run --rm --privileged $image a grep -E '^Seccomp:' /proc/self/status

it 'detach' '^exit 0$' task a --memory-limit 67108864
it 'list' "^a RUNNING"$'\n''exit 0$' tasks
it 'exec' '^hello'$'\n''exit 0$' c task exec --exec-id e a echo hello
it 'exec: exit code' 'exit 9$' c task exec --exec-id e a sh -c 'exit 9'
it 'exec: a signal is 128 and its number' 'exit 137$' c task exec --exec-id e a sh -c 'kill -9 $$'
it 'exec: a command that is missing' 'OCI runtime exec failed: exec failed: .*executable file not found.*exit 1$' \
    c task exec --exec-id e a nosuch
it 'exec: a path that is missing' 'OCI runtime exec failed: exec failed: .*no such file or directory.*exit 1$' \
    c task exec --exec-id e a /no/such
it 'exec: a file that is no program' 'OCI runtime exec failed: exec failed: .*permission denied.*exit 1$' \
    c task exec --exec-id e a /plain
it 'exec: directory and user' '^/etc 7'$'\n''exit 0$' \
    c task exec --exec-id e --cwd /etc --user 7 a sh -c 'echo $(pwd) $(id -u)'
it 'exec: on a terminal' "$on_terminal" on_a_terminal "task exec -t --exec-id e a sh -c '$ask'"
it 'ps' '^the first process is among them'$'\n''exit 0$' ps_is_the_cgroup a
it 'metrics' '^CPU 1'$'\n''memory 1'$'\n''(processes 1'$'\n'')?exit 0$' busy_metrics a
it 'pause' '^exit 0$' c task pause a
it 'pause: status' '^a PAUSED'$'\n''exit 0$' tasks
it 'pause: exec' 'exit [1-9]' c task exec --exec-id e a true
it 'resume' '^exit 0$' c task resume a
it 'resume: status' '^a RUNNING'$'\n''exit 0$' tasks
it 'rm: of a task that runs' 'exit 1$' c task rm a
it 'kill: a signal that it handles' '^exit 0$' c task kill -s TERM a
it 'kill: status' '^exit 0$' eventually is a STOPPED
it 'kill: of one that stopped' 'exit [01]$' c task kill -s TERM a
it 'task rm: the exit code' 'exit code 3.*exit [03]$' c task rm a
it 'rm' '^exit 0$' c container rm a
it 'kill: everything' '^exit 0$' task b
it 'kill: everything, by SIGKILL' '^exit 0$' c task kill -a -s KILL b
it 'kill: everything, status' '^exit 0$' eventually is b STOPPED
it 'kill: SIGKILL is 137' 'exit code 137.*exit' c task rm b
it 'kill: rm' '^exit 0$' c container rm b
it 'rm: forced' '^exit 0$' task f
it 'rm: forced, of one that runs' 'exit code 137.*exit 0$' c task rm -f f
it 'rm: forced, the container' '^exit 0$' c container rm f

it 'out of memory' 'exit 137$' run --memory-limit 20971520 $image m sh -c 'sleep 1; exec tail -c 90m /dev/zero'
it 'out of memory: the event' '1 /tasks/oom'$'\n''exit 0$' events oom
it 'out of memory: rm' '^exit 0$' c container rm m
it 'user namespace' '^0 +100000 +65536'$'\n''exit 0$' \
    run --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 $image a sed 's/^ *//' /proc/self/uid_map
it 'user namespace: owner of its files' '^0 0'$'\n''exit 0$' \
    run --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 $image a stat -c '%u %g' /etc/motd
it 'user namespace: on a terminal' "$on_terminal" on_a_terminal \
    "run $with -t --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 $image a sh -c '$ask'"

# A shim that was killed leaves its container: containerd cleans up by the runtime's delete.
it 'a killed shim' '^exit 0$' task k
it 'a killed shim: kill' '^exit 0$' kill -9 "$(ps -eo pid,args | awk '/[c]ontainerd-shim.*-id k( |$)/ { print $1 }')"
it 'a killed shim: its container goes' '^exit 0$' eventually c container rm k

if declare -F more >/dev/null; then more; fi
it 'nothing is listed' '^exit 0$' c container ls -q
kill $watcher
stop $daemon
it 'nothing is left' '^exit 0$' left
