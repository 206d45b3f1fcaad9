# Podman with another runtime: what a user does with containers, one case after the other.
. /run/engines/kit.sh

containers_conf /etc/containers cgroupfs
containers_storage

p() { timeout --foreground -k 5 "$PATIENCE" podman --runtime "$RUNTIME" "$@"; }
run() { p run --cgroup-parent "/$GROUP" "$@"; }
status() { p inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' "$1"; }
of() { echo "$GROUP/libpod-$(p inspect --format '{{.Id}}' "$1")"; }
# Two streams have no order.
logs() { p logs "$1" 2>&1 | sort; }
piped() { echo "through a pipe" | p run --cgroup-parent "/$GROUP" --rm -i $image cat; }
typed() { terminal "podman --runtime $RUNTIME $1"; }
first_of_top() { p top "$1" pid args | grep -oE '^1 +sh -c echo out' | tr -s ' '; }
# A number that is not 0, in each place.
busy_stats() {
    p stats --no-stream --format json "$1" | tr -d ' ",' | while IFS=: read -r key value; do
        case $key:$value in
            mem_usage:0B/*) echo "no memory" ;;
            mem_usage:*) echo "some memory" ;;
            pids:0) echo "no processes" ;;
            pids:*) echo "some processes" ;;
            cpu_time:0s) echo "no CPU time" ;;
            cpu_time:*) echo "some CPU time" ;;
        esac
    done | sort
}

export PODMAN_IGNORE_CGROUPSV1_WARNING=1

before
it 'load' 'Loaded image.*exit 0' p load -i $out/box.oci
it 'run' '^hello world'$'\n''exit 0$' run --rm $image echo hello world
it 'run: standard input' '^through a pipe'$'\n''exit 0$' piped
it 'run: environment, directory, user, host name' '^b /etc 7 8 sheep'$'\n''exit 0$' \
    run --rm -e A=b -w /etc -u 7:8 --hostname sheep $image sh -c 'echo $A $(pwd) $(id -u) $(id -g) $(hostname)'
it 'run: exit code' 'exit 7$' run --rm $image sh -c 'exit 7'
it 'run: a command that is missing is 127' 'executable file not found.*exit 127$' run --rm $image nosuch
it 'run: a path that is missing is 127' 'no such file or directory.*exit 127$' run --rm $image /no/such
it 'run: a file that is no program is 126' 'permission denied.*exit 126$' run --rm $image /plain
it 'run: a directory is 126' '^exit 126$' quiet run --rm $image /etc
it 'run: a directory that is missing' 'exit 12[67]$' run --rm -w /plain $image true
it 'run: on a terminal' "$on_terminal" typed "run --cgroup-parent /$GROUP -it --rm $image sh -c '$ask'"
it 'run: a read-only root' 'Read-only file system.*exit 1$' run --rm --read-only $image touch /x
it 'run: a tmpfs' '^tmpfs.*exit 0$' run --rm --tmpfs /t:size=1m $image sh -c 'df /t | grep -o ^tmpfs'
mkdir -p /tmp/volume; echo inside >/tmp/volume/file
it 'run: a volume' '^inside'$'\n''exit 0$' run --rm -v /tmp/volume:/v:ro $image cat /v/file
it 'run: capabilities' '^CapEff:.0000000000000400'$'\n''exit 0$' \
    run --rm --cap-drop all --cap-add net_bind_service $image grep CapEff /proc/self/status
it 'run: no new privileges, seccomp' '^NoNewPrivs:.1'$'\n''Seccomp:.2'$'\n''exit 0$' \
    run --rm --security-opt no-new-privileges $image grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
it 'run: a limit on files' '^77'$'\n''exit 0$' run --rm --ulimit nofile=77:99 --ulimit nproc=500:500 $image sh -c 'ulimit -n'
it 'run: privileged' 'Seccomp:.0'$'\n''exit 0$' run --rm --privileged $image grep -E '^Seccomp:' /proc/self/status
it 'run: the host'"'"'s PID namespace' 'exit 0$' run --rm --pid host $image sh -c '[ $$ != 1 ]'
it 'run: a sysctl' '^4242'$'\n''exit 0$' run --rm --sysctl kernel.msgmax=4242 $image cat /proc/sys/kernel/msgmax

it 'detach' 'exit 0$' lamb a -m 64m --cpus 1
it 'ps' '^a'$'\n''exit 0$' p ps --format '{{.Names}}' --filter status=running
it 'logs' '^err'$'\n''out'$'\n''exit 0$' logs a
it 'exec' '^hello'$'\n''exit 0$' p exec a echo hello
it 'exec: exit code' 'exit 9$' p exec a sh -c 'exit 9'
it 'exec: a signal is 128 and its number' 'exit 137$' p exec a sh -c 'kill -9 $$'
it 'exec: a command that is missing is 127' 'executable file not found.*exit 127$' p exec a nosuch
it 'exec: a path that is missing is 127' 'no such file or directory.*exit 127$' p exec a /no/such
it 'exec: a file that is no program is 126' 'permission denied.*exit 126$' p exec a /plain
it 'exec: user, directory, environment' '^7 8 /etc b'$'\n''exit 0$' \
    p exec -u 7:8 -w /etc -e A=b a sh -c 'echo $(id -u) $(id -g) $(pwd) $A'
it 'exec: on a terminal' "$on_terminal" typed "exec -it a sh -c '$ask'"
it 'exec: detached' 'exit 0$' p exec -d a touch /detached
it 'exec: detached, what it did' '^exit 0$' eventually p exec a ls /detached
it 'top' '^1 sh -c echo out'$'\n''exit 0$' first_of_top a
it 'stats' '^some CPU time'$'\n''some memory'$'\n''some processes'$'\n''exit 0$' busy_stats a
it 'cp' 'exit 0$' p cp /tmp/volume/file a:/etc/copied
it 'cp: what it did' '^inside'$'\n''exit 0$' p exec a cat /etc/copied
it 'pause' '^a'$'\n''exit 0$' p pause a
it 'pause: status' '^paused 0 false'$'\n''exit 0$' status a
it 'pause: exec' 'exit [1-9]' p exec a true
it 'pause: twice' 'exit 125' p pause a
it 'unpause' '^a'$'\n''exit 0$' p unpause a
it 'unpause: twice' 'exit 125' p unpause a
it 'update' 'exit 0$' p update -m 32m --cpus 0.5 a
it 'update: memory' '^33554432'$'\n''exit 0$' limit "$(of a)" memory.max memory/memory.limit_in_bytes
it 'update: CPU' '^50000.*exit 0$' limit "$(of a)" cpu.max cpu/cpu.cfs_quota_us
it 'another container in its namespaces' '^sh -c echo out'$'\n''exit 0$' \
    run --rm --pid container:a --network container:a --ipc container:a $image sh -c 'ps -o args | grep -o "^sh -c [e]cho out"'
it 'kill: a signal that it handles' 'exit 0$' p kill -s TERM a
it 'kill: the exit code' '^3'$'\n''exit 0$' p wait a
it 'exec: in a container that stopped' 'exit 255$' p exec a true
it 'start again' '^a'$'\n''exit 0$' p start a
it 'restart' '^a'$'\n''exit 0$' p restart -t 5 a
it 'rm: of one that runs' 'cannot remove.*exit 2$' p rm a
it 'stop' '^a'$'\n''exit 0$' p stop -t 5 a
it 'stop: the exit code' '^exited 3 false'$'\n''exit 0$' status a
it 'rm' '^a'$'\n''exit 0$' p rm a
it 'kill: SIGKILL' 'exit 0$' lamb b
it 'kill: SIGKILL, twice' '^b'$'\n''exit 0$' p kill b
it 'kill: SIGKILL is 137' '^137'$'\n''exit 0$' p wait b
it 'rm: forced' 'exit 0$' p rm -f b
it 'rm: forced, of one that runs' 'exit 0$' lamb c
it 'rm: forced, what is left' '^exit 0$' eventually p rm -f -t 0 c

it 'create' 'exit 0$' p create --cgroup-parent "/$GROUP" --name d $image sh -c 'exit 4'
it 'start: attached' 'exit 4$' p start -a d
it 'init: created, not started' '^d'$'\n''exit 0$' p init d
it 'init: status' '^(created|initialized) .*exit 0$' status d
it 'rm: of one that was not started' 'exit 0$' eventually p rm -f d

it 'out of memory' 'exit 137$' run --name m -m 20m --memory-swap 20m $image sh -c "sleep 1; exec tail -c 90m /dev/zero"
# Debian 12's conmon misses it with every runtime.
oom_killed=true
[[ $(podman --version) =~ version\ [5-9] ]] || oom_killed='(true|false)'
it 'out of memory: what the engine knows' "^exited 137 $oom_killed"$'\n''exit 0$' status m
it 'out of memory: rm' 'exit 0$' p rm m
it 'a limit on processes' '.*can.t fork.*exit [1-9]' run --rm --pids-limit 4 $image sh -c \
    'for i in 1 2 3 4 5 6; do sleep 5 & done'
it 'a limit that is too small' '^exit 126$' quiet run --rm -m 10k $image true

it 'user namespace' '^0 +100000 +65536'$'\n''exit 0$' \
    run --rm --uidmap 0:100000:65536 $image sed 's/^ *//' /proc/self/uid_map
it 'user namespace: owner of its files' '^0 0'$'\n''exit 0$' \
    run --rm --uidmap 0:100000:65536 $image stat -c '%u %g' /etc/motd
it 'user namespace: a container in the background' 'exit 0$' lamb u --uidmap 0:100000:65536
it 'user namespace: exec' '^0 100000'$'\n''exit 0$' \
    p exec u sh -c 'echo $(id -u) $(awk "{print \$2}" /proc/self/uid_map)'
it 'user namespace: on a terminal' "$on_terminal" typed "exec -it u sh -c '$ask'"
it 'user namespace: a path that is missing' 'exit 127$' run --rm --uidmap 0:100000:65536 $image nosuch
# Of its own cleaning and this one, Podman lets one fail at times (with every runtime).
it 'user namespace: rm' '^exit 0$' eventually p rm -f -t 0 u

# Containers that share what their pod's first one has.
in_pod() {
    local name=$1; shift
    p run -d --pod q --name "$name" $image sh -c "$@"
}
it 'pod: its first container' 'Loaded image.*exit 0' p load -i $out/pause.oci
# On cgroup v2 Podman 4's own manager lets no device into a pod's cgroup, so that nothing starts there.
own_cgroup=true
if [[ $(podman --version) =~ version\ 4 ]] && [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then own_cgroup=false; fi
it 'pod' 'exit 0$' p pod create --name q --hostname sheep --network none --share pid,ipc,uts \
    --share-parent=$own_cgroup --cgroup-parent "/$GROUP" --infra-image localhost/jug/pause:1
it 'pod: a container' 'exit 0$' in_pod qa 'trap "exit 3" TERM; while :; do sleep 0.1; done'
it 'pod: another' 'exit 0$' in_pod qb 'while :; do sleep 0.1; done'
it 'pod: ps' '^q 3 Running'$'\n''exit 0$' p pod ps --format '{{.Name}} {{.NumberOfContainers}} {{.Status}}'
it 'pod: one sees the other' '^1'$'\n''exit 0$' p exec qb sh -c 'ps -o args | grep -c "^sh -c [t]rap .exit 3"'
it 'pod: its host name' '^sheep'$'\n''exit 0$' p exec qa hostname
it 'pod: pause' 'exit 0$' p pod pause q
it 'pod: unpause' 'exit 0$' p pod unpause q
# (The first container's end is that of all.)
it 'pod: stop' 'exit 0$' quiet p pod stop -t 20 q
it 'pod: start again' 'exit 0$' p pod start q
pod_id=$(p pod inspect --format '{{.ID}}' q)
it 'pod: rm' '^exit 0$' eventually p pod rm -f -t 0 q
# The pod's own cgroup is Podman's, which leaves it at times on cgroup v1 (with runc).
{ cgroups | grep "/$pod_id" || true; } | sort -r | while read -r dir; do rmdir "$dir" || true; done

it 'checkpoint: refused' 'exit 125$' p container checkpoint nosuch
it 'a runtime flag' '^hello.*exit 0$' quiet p --runtime-flag debug run --cgroup-parent "/$GROUP" --rm $image echo hello
it 'nothing is listed' '^exit 0$' p ps -aq
it 'nothing is left' '^exit 0$' left
