# conmon with another runtime, called as CRI-O calls it, and the runtime as CRI-O calls it itself; CRI-O has no Debian
# package.
. /run/engines/kit.sh

run=/run/conmon-test
mkdir -p $run/{exits,persist,sockets,state}
# bundle NAME TERMINAL COMMAND...
bundle() {
    local name=$1 terminal=$2; shift 2
    mkdir -p $run/"$name"/rootfs/{bin,etc,proc,sys,dev,tmp}
    cp /bin/busybox $run/"$name"/rootfs/bin/
    for applet in sh sleep stty tail; do ln -sf busybox "$run/$name/rootfs/bin/$applet"; done
    (cd $run/"$name" && rm -f config.json && runc spec)
    /usr/bin/python3 - $run/"$name"/config.json "/$GROUP/$name" "$terminal" "$@" <<'EDIT'
import json, sys
path, group, terminal, *command = sys.argv[1:]
spec = json.load(open(path))
spec["process"].update(args=command, terminal=terminal == "true", env=["PATH=/bin"])
spec["root"]["readonly"] = False
spec["linux"]["cgroupsPath"] = group
spec["linux"]["resources"]["memory"] = {"limit": 64 << 20}
# This machine may lack the capability for it.
spec["process"].pop("rlimits", None)
json.dump(spec, open(path, "w"))
json.dump(dict(spec["process"], args=["sh", "-c", "echo out; echo err >&2; exit 9"], terminal=False), open(path + ".exec", "w"))
json.dump(dict(spec["process"], args=["nosuch"], terminal=False), open(path + ".nosuch", "w"))
json.dump(dict(spec["process"], args=["sleep", "60"], terminal=False), open(path + ".long", "w"))
EDIT
}
m() { timeout --foreground -k 5 "$PATIENCE" /usr/bin/python3 $out/conmon.py "$@"; }
program=$(command -v "$RUNTIME")
create() { m create "$program" "$@"; }
execute() { m exec "$program" "$@"; }
r() { timeout --foreground -k 5 "$PATIENCE" "$RUNTIME" --root=$run/state "$@"; }
# The runtime's own words, of what conmon makes of them; and how it ends.
words() {
    local ended=0
    "$@" >/tmp/words 2>&1 || ended=$?
    grep -oE 'executable file not found in .PATH|no such file or directory|does not exist' /tmp/words
    return $ended
}
status() { r state "$1" | sed -nE 's/^ *"status": "([a-z]+)".*/\1/p'; }
is() { [ "$(status "$1")" = "$2" ]; }
said() { cut -d' ' -f2,4- $run/"$1".log; }
exited() { eventually test -s $run/exits/"$1" && cat $run/exits/"$1"; }
# Of the runtime's number and conmon's own.
numbers() { kill -0 "$(cat $run/"$1".pid)" && kill -0 "$(cat $run/"$1".conmon)" && cat "/proc/$(cat $run/"$1".conmon)/comm"; }
resize() { echo '1 31 117' >$run/"$1"/ctl; }
update() { echo '{ "memory": { "limit": 33554432 }, "cpu": { "quota": 50000, "period": 100000 } }' | r update --resources - "$1"; }
gone() { eventually test ! -e "/proc/$(cat $run/"$1".conmon)"; }
patient='trap "exit 3" TERM; echo out; echo err >&2; while :; do sleep 0.1; done'

before
it 'features' '"ociVersionMin": "1.0.0".*exit 0$' eval 'r features | grep -o "\"ociVersionMin.*[0-9]\""'
bundle a false sh -c "$patient"
it 'create' '^made'$'\n''exit 0$' create a
it 'create: status' '^created'$'\n''exit 0$' status a
it 'create: what conmon and the runtime are' '^conmon'$'\n''exit 0$' numbers a
it 'start' '^exit 0$' r start a
it 'start: status' '^running'$'\n''exit 0$' status a
it 'log' '^exit 0$' eventually grep -q err $run/a.log
it 'log: what it says' '^stderr err'$'\n''stdout out'$'\n''exit 0$' eval 'said a | sort'
# Two streams have no order.
it 'exec' '^exit code 9 *'$'\n''stderr err'$'\n''stdout out'$'\n''exit 0$' eval "execute a 20 $run/a/config.json.exec | sort"
it 'exec: a command that is missing' '^executable file not found.*exit [0-9]+$' \
    words execute a 20 $run/a/config.json.nosuch
it 'exec: a time limit' 'exit code -1 .*timed out.*exit 0$' execute a 1 $run/a/config.json.long
it 'exec: the runtime itself' '^out'$'\n''exit 9$' eval "r exec --process $run/a/config.json.exec a 2>/dev/null"
it 'pause' '^exit 0$' r pause a
it 'pause: status' '^paused'$'\n''exit 0$' status a
it 'resume' '^exit 0$' r resume a
it 'update' '^exit 0$' update a
it 'update: memory' '^33554432'$'\n''exit 0$' limit "$GROUP/a" memory.max memory/memory.limit_in_bytes
it 'update: CPU' '^50000.*exit 0$' limit "$GROUP/a" cpu.max cpu/cpu.cfs_quota_us
it 'kill' '^exit 0$' r kill a TERM
it 'kill: the exit code' '^3.*exit 0$' exited a
it 'kill: status' '^exit 0$' eventually is a stopped
it 'kill: conmon ends' '^exit 0$' gone a
it 'delete' '^exit 0$' r delete a
it 'delete: again' 'does not exist'$'\n''exit 1$' words r state a

bundle i false sh -c 'while read line; do echo got $line; done; exit 6'
it 'attach: create' '^made'$'\n''exit 0$' create i -i --leave-stdin-open
it 'attach: start' '^exit 0$' r start i
it 'attach' '^got wool'$'\n''exit 0$' m attach i 'wool\n' 'got wool'
it 'attach: again' '^got yarn'$'\n''exit 0$' m attach i 'yarn\n' 'got yarn'
it 'attach: log' '^stdout got wool'$'\n''stdout got yarn'$'\n''exit 0$' said i
it 'attach: delete by force' '^exit 0$' r delete --force i
it 'attach: conmon ends' '^exit 0$' gone i

bundle t true sh -c 'read line; stty size; echo got $line; exit 5'
it 'terminal: create' '^made'$'\n''exit 0$' create t -i -t
it 'terminal: start' '^exit 0$' r start t
it 'terminal: resize' '^exit 0$' resize t
it 'terminal: attach' '^wool'$'\n''31 117'$'\n''got wool'$'\n''exit 0$' m attach t 'wool\n' 'got wool'
it 'terminal: the exit code' '^5.*exit 0$' exited t
it 'terminal: delete' '^exit 0$' r delete t

bundle x false /no/such
it 'one that fails' '^no such file or directory.*exit 1$' words create x
bundle n false sh -c 'exit 4'
it 'without pivot_root' '^made'$'\n''exit 0$' create n --no-pivot
it 'without pivot_root: start' '^exit 0$' r start n
it 'without pivot_root: the exit code' '^4.*exit 0$' exited n
it 'without pivot_root: delete' '^exit 0$' r delete n
bundle o false sh -c 'sleep 1; exec tail -c 190m /dev/zero'
it 'out of memory: create' '^made'$'\n''exit 0$' create o
it 'out of memory: start' '^exit 0$' r start o
it 'out of memory: the exit code' '^137.*exit 0$' exited o
it 'out of memory: delete' '^exit 0$' r delete o
it 'nothing is listed' '^exit 0$' r list -q
it 'nothing is left' '^exit 0$' left
