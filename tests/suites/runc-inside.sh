# Runs files of runc's integration suite in a root of their own: see scripts/suites-runc, which calls this in new mount
# and PID namespaces.
#
# LOWER is a Debian made by runc-world.sh, FILTER a regular expression for the files' names. OUT holds the runtime as
# `runc` and receives a TAP file for each file. Whatever the suite writes goes to memory.
set -euo pipefail

enter() {
    local root=/run/jug-root dir
    mount --make-rprivate /
    mkdir -p "$OUT/over"
    mount -t tmpfs -o mode=755 over "$OUT/over"
    cd "$OUT/over"
    mkdir upper work root
    mount -t overlay -o "lowerdir=$LOWER,upperdir=upper,workdir=work" overlay root
    cd root
    for dir in dev sys; do mount --rbind "/$dir" $dir; done
    mount -t proc proc proc
    for dir in run tmp var/tmp; do mkdir -p $dir; mount -t tmpfs -o mode=1777 tmpfs $dir; done
    mount -t tmpfs -o mode=1777 shm dev/shm
    mkdir run/suite
    mount --bind "$OUT" run/suite
    # cgroup v2 alone, as on machines of today.
    if [ -z "${HYBRID:-}" ] && [ "$(stat -f -c %T sys/fs/cgroup)" != cgroup2fs ]; then
        umount -R sys/fs/cgroup 2>/dev/null || umount -R -l sys/fs/cgroup
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    fi
    mkdir -p "${root#/}"
    pivot_root . "${root#/}"
    umount -l "$root"
    cd /
    mount --make-rshared /
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=xterm LC_ALL=C.UTF-8 \
        FILTER="$FILTER" PATIENCE="${PATIENCE:-300}" \
        bash /run/suite/inside.sh run
}

# The directories of cgroup v2, deepest first. Others on this machine may take theirs away while find(1) looks.
cgroups() { find /sys/fs/cgroup -xdev -depth -mindepth 1 -maxdepth 4 -type d 2>/dev/null || true; }

run() {
    local file name before
    before=$(cgroups)
    cd /suite/tests/integration
    mkfifo /run/silence
    export RUNC=/run/suite/runc
    # A case that fails within its teardown leaves a recvtty behind, on whose output bats would wait. Those of running cases
    # are children of 1 as well: it is the age that tells.
    while sleep 5; do pkill -P 1 -x --older 30 recvtty || true; done &
    for file in *.bats; do
        name=${file%.bats}
        [[ $name =~ $FILTER ]] || continue
        # Many of its containers want a terminal, on which nobody types.
        timeout --foreground "$PATIENCE" script -qefc "bats --tap --timing $file" /dev/null <>/run/silence |
            tr -d '\r' >/run/suite/results/"$name.tap" || true
        echo "suites: $name: $(grep -c '^ok' /run/suite/results/"$name.tap") of" \
            "$(sed -n 's/^1\.\.//p' /run/suite/results/"$name.tap")" >&2
    done
    # What the cases leave, and nothing that was there or is in use.
    grep -vxF -f <(printf '%s\n' "$before") <(cgroups) | grep -E '/(runc-cgroups-integration-test|test_|target_)' |
        xargs -r rmdir 2>/dev/null || true
}

"$1"
