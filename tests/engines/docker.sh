# Docker with another runtime: what a user does with containers, one case after the other.
. /run/engines/kit.sh

daemon_json cgroupfs "/$GROUP"
d() { timeout --foreground -k 5 "$PATIENCE" docker "$@"; }
# Docker 26 loses the output of a container that ends at once, now and then and with runc too: then it is run again.
run() {
    local text ended
    for _ in 1 2 3; do
        ended=0
        text=$(d run --network none "$@" 2>&1) || ended=$?
        [ -z "$text" ] || break
    done
    printf '%s\n' "$text"
    return $ended
}
status() { d inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' "$1"; }
of() { echo "$GROUP/$(d inspect --format '{{.Id}}' "$1")"; }
# Two streams have no order.
logs() { d logs "$1" 2>&1 | sort; }
piped() { echo "through a pipe" | d run --network none --rm -i $image cat; }
typed() { terminal "docker $1"; }
first_of_top() { d top "$1" | grep -o 'sh -c echo out'; }
busy_stats() {
    d stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' "$1" | awk '
        { print ($1 ~ /^0B/) ? "no memory" : "some memory"; print ($NF > 0) ? "some processes" : "no processes" }'
}

before
dockerd >/run/docker-test/log 2>&1 &
daemon=$!
eventually docker version || { cat /run/docker-test/log; exit 1; }

it 'info' "^$(basename "$RUNTIME" | sed 's/.*/RUNTIME/')"$'\n''exit 0$' d info --format '{{.DefaultRuntime}}'
it 'load' 'Loaded image.*exit 0$' d load -i $out/box.tar
it 'run' '^hello world'$'\n''exit 0$' run --rm $image echo hello world
it 'run: standard input' '^through a pipe'$'\n''exit 0$' piped
it 'run: environment, directory, user, host name' '^b /etc 7 8 sheep'$'\n''exit 0$' \
    run --rm -e A=b -w /etc -u 7:8 --hostname sheep $image sh -c 'echo $A $(pwd) $(id -u) $(id -g) $(hostname)'
it 'run: exit code' 'exit 7$' d run --network none --rm $image sh -c 'exit 7'
it 'run: a command that is missing is 127' 'executable file not found.*exit 127$' run --rm $image nosuch
it 'run: a path that is missing is 127' 'no such file or directory.*exit 127$' run --rm $image /no/such
it 'run: a file that is no program is 126' 'permission denied.*exit 126$' run --rm $image /plain
it 'run: a directory is 126' '^exit 126$' quiet d run --network none --rm $image /etc
it 'run: on a terminal' "$on_terminal" typed "run --network none -it --rm $image sh -c '$ask'"
it 'run: a read-only root' 'Read-only file system.*exit 1$' run --rm --read-only $image touch /x
it 'run: a tmpfs' '^tmpfs.*exit 0$' run --rm --tmpfs /t:size=1m $image sh -c 'df /t | grep -o ^tmpfs'
mkdir -p /tmp/volume; echo inside >/tmp/volume/file
it 'run: a volume' '^inside'$'\n''exit 0$' run --rm -v /tmp/volume:/v:ro $image cat /v/file
it 'run: capabilities' '^CapEff:.0000000000000400'$'\n''exit 0$' \
    run --rm --cap-drop all --cap-add net_bind_service $image grep CapEff /proc/self/status
it 'run: no new privileges, seccomp' '^NoNewPrivs:.1'$'\n''Seccomp:.2'$'\n''exit 0$' \
    run --rm --security-opt no-new-privileges $image grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
it 'run: a limit on files' '^77'$'\n''exit 0$' run --rm --ulimit nofile=77:99 $image sh -c 'ulimit -n'
# Docker asks for every capability of the kernel; a machine that lacks one cannot give them (runc fails then).
if [ "$(awk '/CapBnd/ { print $2 }' /proc/self/status)" = "$(printf '%016x' $(((2 << $(cat /proc/sys/kernel/cap_last_cap)) - 1)))" ]
then
    it 'run: privileged' 'Seccomp:.0'$'\n''exit 0$' \
        run --rm --privileged $image grep -E '^Seccomp:' /proc/self/status
else
    say 'run: privileged: not here, this machine lacks a capability'
fi
it 'run: the host'"'"'s PID namespace' '^not 1'$'\n''exit 0$' \
    run --rm --pid host $image sh -c '[ $$ = 1 ] || echo not 1'
it 'run: a sysctl' '^4242'$'\n''exit 0$' run --rm --sysctl kernel.msgmax=4242 $image cat /proc/sys/kernel/msgmax

it 'detach' 'exit 0$' lamb aa -m 64m --cpus 1
it 'ps' '^aa'$'\n''exit 0$' d ps --format '{{.Names}}' --filter status=running
it 'logs' '^err'$'\n''out'$'\n''exit 0$' logs aa
it 'exec' '^hello'$'\n''exit 0$' d exec aa echo hello
it 'exec: exit code' 'exit 9$' d exec aa sh -c 'exit 9'
it 'exec: a signal is 128 and its number' 'exit 137$' d exec aa sh -c 'kill -9 $$'
it 'exec: a command that is missing is 127' 'executable file not found.*exit 12[67]$' d exec aa nosuch
it 'exec: a path that is missing is 127' 'no such file or directory.*exit 12[67]$' d exec aa /no/such
it 'exec: a file that is no program is 126' 'permission denied.*exit 126$' d exec aa /plain
it 'exec: user, directory, environment' '^7 8 /etc b'$'\n''exit 0$' \
    d exec -u 7:8 -w /etc -e A=b aa sh -c 'echo $(id -u) $(id -g) $(pwd) $A'
it 'exec: on a terminal' "$on_terminal" typed "exec -it aa sh -c '$ask'"
it 'top' '^sh -c echo out'$'\n''exit 0$' first_of_top aa
it 'stats' '^some memory'$'\n''some processes'$'\n''exit 0$' busy_stats aa
it 'cp' 'exit 0$' quiet d cp /tmp/volume/file aa:/etc/copied
it 'cp: what it did' '^inside'$'\n''exit 0$' d exec aa cat /etc/copied
it 'pause' '^aa'$'\n''exit 0$' d pause aa
it 'pause: status' '^paused 0 false'$'\n''exit 0$' status aa
it 'pause: exec' 'exit [1-9]' d exec aa true
it 'pause: twice' 'exit 1$' d pause aa
it 'unpause' '^aa'$'\n''exit 0$' d unpause aa
it 'update' 'exit 0$' d update -m 32m --memory-swap 32m --cpus 0.5 aa
it 'update: memory' '^33554432'$'\n''exit 0$' limit "$(of aa)" memory.max memory/memory.limit_in_bytes
it 'update: CPU' '^50000.*exit 0$' limit "$(of aa)" cpu.max cpu/cpu.cfs_quota_us
it 'another container in its namespaces' '^sh -c echo out'$'\n''exit 0$' \
    d run --rm --pid container:aa --network container:aa $image sh -c \
    'ps -o args | grep -o "^sh -c [e]cho out"'
it 'kill: a signal that it handles' 'exit 0$' d kill -s TERM aa
it 'kill: the exit code' '^3'$'\n''exit 0$' d wait aa
it 'exec: in a container that stopped' 'exit 1$' d exec aa true
it 'start again' '^aa'$'\n''exit 0$' d start aa
it 'restart' '^aa'$'\n''exit 0$' d restart -t 5 aa
it 'rm: of one that runs' 'exit 1$' d rm aa
it 'stop' '^aa'$'\n''exit 0$' d stop -t 5 aa
it 'stop: the exit code' '^exited 3 false'$'\n''exit 0$' status aa
it 'rm' '^aa'$'\n''exit 0$' d rm aa
it 'kill: SIGKILL' 'exit 0$' lamb bb
it 'kill: SIGKILL, then' '^bb'$'\n''exit 0$' d kill bb
it 'kill: SIGKILL is 137' '^137'$'\n''exit 0$' d wait bb
it 'rm: forced' 'exit 0$' d rm -f bb
it 'rm: forced, of one that runs' 'exit 0$' lamb cc
it 'rm: forced, what is left' '^cc'$'\n''exit 0$' d rm -f cc
it 'create' 'exit 0$' d create --network none --name ee $image sh -c 'exit 4'
it 'start: attached' 'exit 4$' d start -a ee
it 'start: rm' 'exit 0$' d rm ee

it 'out of memory' 'exit 137$' \
    d run --network none --name mm -m 20m --memory-swap 20m $image sh -c 'sleep 1; exec tail -c 90m /dev/zero'
it 'out of memory: what the engine knows' '^exited 137 true'$'\n''exit 0$' status mm
it 'out of memory: rm' 'exit 0$' d rm mm
it 'a limit on processes' '.*can.t fork.*exit [1-9]' run --rm --pids-limit 4 $image sh -c \
    'for i in 1 2 3 4 5 6; do sleep 5 & done'

# What `compose` does of its own, without ports: a volume, services that share it and each other's namespaces, one that
# is started again, all found by their label, stopped and removed in order.
restarted() { [ "$(d inspect --format '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' again)" = '2 exited 9' ]; }
project() { d ps -a --filter label=project=sheep --format '{{.Names}}' | sort; }
it 'project: its volume' '^wool'$'\n''exit 0$' d volume create --label project=sheep wool
it 'project: a service' 'exit 0$' lamb one --label project=sheep -v wool:/v
it 'project: one that writes' 'exit 0$' run --rm --label project=sheep --volumes-from one $image sh -c 'echo yarn >/v/made'
it 'project: what it wrote' '^yarn'$'\n''exit 0$' d exec one cat /v/made
it 'project: one in its namespaces' 'exit 0$' lamb two --label project=sheep --pid container:one -v wool:/v:ro
it 'project: it sees the other' '^2'$'\n''exit 0$' d exec two sh -c 'ps -o args | grep -c "^sh -c [e]cho out"'
it 'project: one that fails' 'exit 0$' run -d --name again --label project=sheep --restart on-failure:2 $image sh -c 'exit 9'
it 'project: is started again' '^exit 0$' eventually restarted
it 'project: listed' '^again'$'\n''one'$'\n''two'$'\n''exit 0$' project
it 'project: stop' '^two'$'\n''one'$'\n''exit 0$' d stop -t 5 two one
it 'project: rm' 'exit 0$' d rm two one again
it 'project: rm its volume' '^wool'$'\n''exit 0$' d volume rm wool

# The daemon may go and come: with live-restore off it stops what runs.
it 'nothing is listed' '^exit 0$' d ps -aq
stop $daemon
it 'nothing is left' '^exit 0$' left
