# What the engines' scripts share: a private root, cases with an expectation, and an eye on what is left.
#
# scripts/engines runs `kit.sh enter LOWER OUT SCRIPT` in new mount and PID namespaces. That makes a root of its own: an
# overlay over LOWER (this machine's root, or a chroot with another Debian), writable in memory alone, with its own
# /run, /tmp, /dev/shm and /var/lib. There SCRIPT runs, with OUT at /run/engines: the runtime, the image, the results.
# Whatever a daemon writes is gone when the last process is, and every process ends with the first one.
set -euo pipefail

out=/run/engines
image=localhost/jug/box:1

enter() {
    local lower=$1 outside=$2 script=$3 root=/run/jug-root dir
    # A user's session has a mount of its own, which must be there before the others are copied.
    if [ "$script" = systemd.sh ]; then
        loginctl enable-linger jug
        eventually test -S /run/user/1000/bus
    fi
    mount --make-rprivate /
    mkdir -p "$outside/over"
    mount -t tmpfs -o mode=755 over "$outside/over"
    cd "$outside/over"
    mkdir upper work root
    mount -t overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" overlay root
    cd root
    for dir in dev sys; do mount --rbind "/$dir" $dir; done
    mount -t proc proc proc
    for dir in run tmp var/tmp var/lib/containers var/lib/containerd var/lib/docker; do
        mkdir -p $dir
        mount -t tmpfs -o mode=755 tmpfs $dir
    done
    # What speaks with systemd has its sockets, of the system and of its users.
    for dir in run/systemd run/dbus run/user; do
        [ "$script" = systemd.sh ] && [ -d "/$dir" ] || continue
        mkdir -p $dir
        mount --rbind "/$dir" $dir
    done
    chmod 1777 tmp var/tmp
    mkdir -p dev/shm
    mount -t tmpfs -o mode=1777 shm dev/shm
    mkdir run/engines run/lock
    mount --bind "$outside" run/engines
    # The old root lies below the new one for a moment; a directory of the overlay would stay in use.
    mkdir "${root#/}"
    pivot_root . "${root#/}"
    umount -l "$root"
    cd /
    rmdir "$root"
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=xterm LC_ALL=C.UTF-8 \
        RUNTIME="$RUNTIME" GROUP="$GROUP" PATIENCE="${PATIENCE:-60}" MANY="${MANY:-12}" \
        bash "$out/$script"
}

# Where Podman and Buildah keep what they have, and the ids of root's user namespaces.
containers_storage() {
    mkdir -p /etc/containers
    cat >/etc/containers/storage.conf <<CONF
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
CONF
    echo 'root:100000:65536' | tee /etc/subuid >/etc/subgid
}

# containers_conf DIRECTORY MANAGER: what Podman is told, there; cgroups are made by cgroupfs or by systemd.
containers_conf() {
    mkdir -p "$1"
    cat >"$1/containers.conf" <<CONF
[engine]
cgroup_manager = "$2"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "jug-oci"]
[engine.runtimes]
jug-oci = ["$out/jug-oci"]
[containers]
log_driver = "k8s-file"
netns = "none"
CONF
}

# daemon_json DRIVER PARENT: what dockerd is told, and its client; cgroups are made by cgroupfs or systemd, below PARENT.
daemon_json() {
    local also=''
    if [ -x /usr/bin/crun ]; then also=', "crun": { "path": "/usr/bin/crun" }'; fi
    mkdir -p /etc/docker /run/docker-test
    cat >/etc/docker/daemon.json <<CONF
{
    "runtimes": { "jug-oci": { "path": "$out/jug-oci" }$also },
    "default-runtime": "$(basename "$RUNTIME")",
    "hosts": ["unix:///run/docker-test/socket"],
    "exec-root": "/run/docker",
    "pidfile": "/run/docker-test/pid",
    "bridge": "none",
    "iptables": false,
    "ip6tables": false,
    "storage-driver": "overlay2",
    "cgroup-parent": "$2",
    "exec-opts": ["native.cgroupdriver=$1"]
}
CONF
    export DOCKER_HOST=unix:///run/docker-test/socket
}

# lamb NAME [FLAG]...: of $image, detached, a program that speaks and then waits for SIGTERM, where it ends with 3. By
# the engine's own `run` and `logs`, which each script has.
lamb() {
    local name=$1; shift
    run -d --name "$name" "$@" $image sh -c 'echo out; echo err >&2; trap "exit 3" TERM; while :; do sleep 0.1; done' &&
        eventually spoke "$name"
}
spoke() { grep -qx err <<<"$(logs "$1")"; }

# Where the words are the runtime's own, and no engine looks at them.
quiet() { "$@" 2>/dev/null; }

say() { echo "engines: $*" >&2; }

# What differs from runtime to runtime and from run to run, and says nothing: the runtime's name, ids, times, words that
# runc has since 1.2, and the lines in which jug says more than runc (docs/deviations.md, "Errors").
plain() {
    sed -E -e 's/\r$//' -e "s#(/[^ \`\"]*/)?$(basename "$RUNTIME")#RUNTIME#g" -e 's/\b[0-9a-f]{64}\b/ID/g' \
        -e 's/\btime="[^"]*" //' -e 's/\belapsed: [0-9.]+ s\b.*/elapsed/' -e 's/error during container init: //' \
        -e '/^(why|next): /{s/^.*(: (unknown|OCI [^:]*)\.?)$/\1/;t;d}' |
        # What the engine puts behind such a line is the end of the message.
        sed -E -e ':a' -e 'N' -e '$!ba' -e 's/\n: /: /g'
}

number=0
# it NAME REGEX COMMAND...: the command's output and its exit code, in the words of a shell, must match; both are kept,
# and compared with what runc gave.
it() {
    local name=$1 expected=$2 text ended=0 verdict=ok file
    shift 2
    number=$((number + 1))
    file=$(printf '%s/results/%03d %s' $out $number "${name//\//,}")
    "$@" >"$out/text" 2>&1 </dev/null || ended=$?
    text=$({ cat "$out/text"; echo "exit $ended"; } | tr -d '\000' | plain)
    [[ $text =~ $expected ]] || verdict="expected: $expected"
    printf '%s\n' "$text" >"$file"
    [ "$verdict" = ok ] || { printf '%s\n' "$verdict" >"$file.bad"; }
    say "$(printf '%-60s %s' "$name" "$verdict")"
}

# eventually COMMAND...: until it succeeds, or the patience ends.
eventually() {
    local end=$((SECONDS + PATIENCE))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "never came: $*"; return 1; }
        sleep 0.1
    done
}

# terminal COMMAND: runs it on a terminal of 31 rows and 117 columns, and types a line. COMMAND ends with `sh -c '$ask'`,
# and of what is seen only the answers are kept.
ask='tty; sleep 0.5; stty size; read line; echo got $line; exit 5'
on_terminal='^/dev/pts/[0-9]+'$'\n''31 117'$'\n''got wool'$'\n''exit 5$'
terminal() {
    local ended=0
    { sleep $((PATIENCE / 60)); echo wool; sleep $((PATIENCE / 60)); } |
        script -qec "stty rows 31 cols 117; $1" /dev/null >$out/screen || ended=${PIPESTATUS[1]}
    tr -d '\r\000' <$out/screen | grep -oE '(/dev/pts/[0-9]+|[0-9]+ [0-9]+|got .*)$' || cat $out/screen
    return "$ended"
}

# Every cgroup of ours, in any hierarchy.
cgroups() {
    find /sys/fs/cgroup -type d -path "*/$GROUP*" 2>/dev/null
}

# The file of a container's cgroup: `limit CGROUP memory.max memory/memory.limit_in_bytes`, v2's name and then v1's.
limit() {
    if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
        cat "/sys/fs/cgroup/$1/$2"
    else
        cat "/sys/fs/cgroup/${3%/*}/$1/${3##*/}"
    fi
}

# What is there: mounts, processes, and files where runtimes keep their state. (The find(1) and sort(1) of the pipe
# itself are left out.)
look() {
    local dir
    while read -r _ _ _ _ point _; do echo "mount $point"; done </proc/self/mountinfo
    for dir in /proc/[0-9]*; do
        [ "${dir#/proc/}" = $$ ] || [ "${dir#/proc/}" = "$BASHPID" ] || echo "process $(cat "$dir/comm" 2>/dev/null)"
    done
    # (A folder of containerd's namespace or of Docker's stays empty.)
    find /run/runc /run/jug-oci /run/containerd/runc/* /run/containerd/jug/* /run/docker/runtime-*/* -mindepth 1 2>/dev/null |
        sed 's/^/state /' || true
}

# Keeps what is there before the engine starts.
before() { look >$out/before; }

# What is there now and was not before. The engine's own cgroups, without a process and a container, go with it.
left() {
    local dir end=$((SECONDS + 10)) found
    while :; do
        look >$out/after
        found=$(comm -13 <(sort -u $out/before) <(sort -u $out/after))
        [ -n "$found" ] && [ $SECONDS -lt $end ] || break
        sleep 0.5
    done
    cgroups | sort -r | while read -r dir; do
        case $dir in
            */"$GROUP" | */conmon) ;;
            *) echo "cgroup $dir" ;;
        esac
        rmdir "$dir" 2>/dev/null || echo "cgroup $dir is in use"
    done
    [ -z "$found" ] || echo "$found"
}

# stop PID: ends a daemon and waits for it.
stop() {
    kill "$1"
    wait "$1" || true
}

if [ "${1-}" = enter ]; then
    shift
    enter "$@"
fi
