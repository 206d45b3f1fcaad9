# containerd with containerd-shim-jug-v2: the cases of containerd.sh, and those that are about a shim. The oracle is
# containerd's own shim with runc.
. /run/engines/kit.sh

case $RUNTIME in
    runc) with='--runc-binary runc' ;;
    *) with="--runtime $out/containerd-shim-jug-v2" ;;
esac

cat >/run/logger <<'LOGGER'
#!/bin/bash
# A logging program: streams are 3 and 4, 5 is closed when it is ready.
{ sed 's/^/out /' <&3 & sed 's/^/err /' <&4; wait; echo "end $CONTAINER_ID $1"; } >/run/logged 2>&1 5>&- &
exec 5>&-
wait
LOGGER
chmod +x /run/logger
both='echo one; echo two >&2'
logged() { sort "$1"; }
# containerd is killed, and comes back.
again() {
    kill -9 $daemon
    wait $daemon 2>/dev/null || true
    begin
}
# Many at once, some of whose shims are killed while containerd is away: all that is left can be removed.
many() {
    local i
    for ((i = 0; i < $1; i++)); do run -d $image "many-$i" sleep 1000 || return; done
    echo "$(tasks | grep -c '^many.*RUNNING') run"
    kill -9 $daemon
    wait $daemon 2>/dev/null || true
    for ((i = 0; i < $1; i += 3)); do
        kill -9 "$(ps -eo pid,args | awk -v id="many-$i" '/[c]ontainerd-shim/ && $0 ~ "-id " id "( |$)" { print $1 }')"
    done
    begin
    for ((i = 0; i < $1; i++)); do
        c task rm -f "many-$i" >/dev/null 2>&1 || true
        eventually c container rm "many-$i" || return
    done
    echo "$(c container ls -q | grep -c ^many) left"
    ps -eo args | grep -c '[s]leep 1000' || true
}
sockets() { [ "$RUNTIME" = runc ] || find /run/containerd/s -type s; }

more() {
    it 'log to a file' '^exit 0$' run --rm --log-uri file:///run/logs/a $image a sh -c "$both"
    it 'log to a file: what it says' '^one'$'\n''two'$'\n''exit 0$' logged /run/logs/a
    it 'log to a program' '^exit 0$' run --rm --log-uri 'binary:///run/logger?x=y' $image a sh -c "$both"
    it 'log to a program: its end' '^exit 0$' eventually grep '^end' /run/logged
    it 'log to a program: what it says' '^end a x'$'\n''err two'$'\n''out one'$'\n''exit 0$' logged /run/logged
    it 'restart of containerd' '^exit 0$' task r
    it 'restart of containerd: it comes back' '^exit 0$' again
    it 'restart of containerd: the task is there' '^r RUNNING'$'\n''exit 0$' tasks
    it 'restart of containerd: exec' '^hello'$'\n''exit 0$' c task exec --exec-id e r echo hello
    it 'restart of containerd: kill' '^exit 0$' c task kill -s TERM r
    it 'restart of containerd: status' '^exit 0$' eventually is r STOPPED
    it 'restart of containerd: the exit code' 'exit code 3.*exit [03]$' c task rm r
    it 'restart of containerd: rm' '^exit 0$' c container rm r
    it 'many containers, killed shims, a restart' "^$MANY run"$'\n''0 left'$'\n''0'$'\n''exit 0$' many "$MANY"
    it 'no socket is left' '^exit 0$' sockets
}

. /run/engines/containerd.sh
