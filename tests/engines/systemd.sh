# With systemd, in the virtual machine: its cgroups under containerd's CRI plugin, ctr, Docker, Podman and a user's own
# Podman; and checkpoints through a shim. Few cases of each: what else engines do is shown by their own scripts.
. /run/engines/kit.sh

socket=/run/containerd-test/socket
config=/run/containerd-test/config.toml
slice=$(tr -d - <<<"$GROUP").slice
mkdir /run/containerd-test /run/logs
case $RUNTIME in
    runc)
        own="runtime_type = \"io.containerd.runc.v2\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.own.options]
    SystemdCgroup = true"
        with="--runtime io.containerd.runc.v2"
        ;;
    *)
        own="runtime_type = \"io.containerd.jug.v2\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.own.options]
    ConfigPath = \"/run/containerd-test/jug.toml\""
        with="--runtime io.containerd.jug.v2"
        ;;
esac
echo 'SystemdCgroup = true' >/run/containerd-test/jug.toml
cat >$config <<CONF
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
    address = "$socket"
[ttrpc]
    address = "$socket.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "localhost/jug/pause:1"
    disable_hugetlb_controller = false
[plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/run/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "given"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.given]
    runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.given.options]
    BinaryName = "$RUNTIME"
    SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.own]
    $own
CONF
ln -s $out/containerd-shim-jug-v2 $out/jug-oci /usr/local/bin/
patient='trap "exit 3" TERM; while :; do sleep 0.5; done'

k() { timeout --foreground -k 5 "$PATIENCE" /usr/bin/python3 $out/cri.py $socket "$@"; }
# In the namespace of the CRI plugin, where the image is.
c() { timeout --foreground -k 5 "$PATIENCE" ctr -a $socket -n k8s.io "$@"; }
id() { cat /run/id-"$1"; }
about() { echo "{ \"parent\": \"$slice\", \"logs\": \"/run/logs\"${1:+, $1} }"; }
pod() { k pod "$1" "$2" "$(about)" >/run/id-"$1" || { cat /run/id-"$1"; return 1; }; }
make() {
    local name=$1 pod=$2 more=$3; shift 3
    k create "$(id "$pod")" "$pod" "$name" $image "$(about "$more")" "$@" >/run/id-"$name" || { cat /run/id-"$name"; return 1; }
    k start "$(id "$name")"
}
# systemctl says nothing where its root is not the first process's.
export SYSTEMD_IGNORE_CHROOT=1
unit() { systemctl show -p "$2" "$1" 2>&1; }
scope() { unit "cri-containerd-$(id "$1").scope" "$2"; }
cgroup_of() { unit "cri-containerd-$(id "$1").scope" ControlGroup | cut -d= -f2; }
# The scopes that are there.
scopes() { systemctl list-units --all --plain --no-legend "$1" | cut -d' ' -f1; }
# Where systemd is, processes are those of the whole machine.
look() {
    cut -d' ' -f5 /proc/self/mountinfo | grep -E 'containerd|containers|/netns/' | sed 's/^/mount /' || true
    ps -eo comm | grep -E '^(containerd|dockerd|conmon|runc|jug-oci|podman|sleep|catatonit)' | sed 's/^/process /' || true
    for unit in cri-containerd ctr docker libpod; do scopes "$unit-*.scope"; done | sed 's/^/unit /' || true
    find /run/runc /run/jug-oci /run/containerd/runc/* /run/containerd/jug/* /run/docker/runtime-*/* -mindepth 1 \
        2>/dev/null | sed 's/^/state /' || true
    return 0
}

before
# No PID namespace ends a daemon with this script.
trap '[ -z "${daemon-}" ] || kill "$daemon" 2>/dev/null || true' EXIT
containerd --config $config 2>/run/containerd-test/log &
daemon=$!
eventually k version || { tail /run/containerd-test/log; exit 1; }
for name in box pause; do
    it "import $name" 'exit 0$' timeout "$PATIENCE" ctr -a $socket -n k8s.io image import $out/$name.oci
done
for handler in given own; do
    it "$handler: a pod" '^exit 0$' pod p-$handler $handler
    it "$handler: a container" '^exit 0$' make $handler p-$handler '"memory": 67108864, "quota": 50000, "period": 100000,
        "hugepages": { "2MB": 4194304 }' sh -c "$patient"
    it "$handler: its slice" "^Slice=$slice"$'\n''exit 0$' scope $handler Slice
    it "$handler: memory" '^MemoryMax=67108864'$'\n''exit 0$' scope $handler MemoryMax
    it "$handler: huge pages" '^4194304'$'\n''exit 0$' cat "/sys/fs/cgroup/$(cgroup_of $handler)/hugetlb.2MB.max"
    it "$handler: CPU" '^CPUQuotaPerSecUSec=500ms'$'\n''exit 0$' scope $handler CPUQuotaPerSecUSec
    it "$handler: exec" '^exit 0$' k exec "$PATIENCE" "$(id $handler)" true
    it "$handler: update" '^exit 0$' k update "$(id $handler)" 60000 33554432
    it "$handler: memory, updated" '^MemoryMax=33554432'$'\n''exit 0$' scope $handler MemoryMax
    it "$handler: stop" '^exit 0$' k stop-pod "$(id p-$handler)"
    it "$handler: rm" '^exit 0$' k rm-pod "$(id p-$handler)"
    it "$handler: no unit is left" '^exit 0$' scopes "cri-containerd-$(id $handler)*"
done

# As a client names the runtime and its cgroup.
t() { c run --runc-binary "$RUNTIME" --runc-systemd-cgroup --cgroup "$slice:ctr:t" "$@"; }
task() { c task ls | awk -v name="$1" '$1 == name { print $3 }'; }
is() { [ "$(task "$1")" = "$2" ]; }
it 'ctr: run' '^hello'$'\n''exit 0$' t --rm $image t echo hello
it 'ctr: run, exit code' 'exit 7$' t --rm $image t sh -c 'exit 7'
it 'ctr: run, a command that is missing' 'executable file not found.*exit 1$' t --rm $image t nosuch
it 'ctr: detach' '^exit 0$' t -d --memory-limit 67108864 $image t sh -c "$patient"
it 'ctr: its slice' "^Slice=$slice"$'\n''exit 0$' unit ctr-t.scope Slice
it 'ctr: memory' '^MemoryMax=67108864'$'\n''exit 0$' unit ctr-t.scope MemoryMax
it 'ctr: exec, exit code' 'exit 9$' c task exec --exec-id e t sh -c 'exit 9'
it 'ctr: pause' '^exit 0$' c task pause t
it 'ctr: pause, status' '^PAUSED'$'\n''exit 0$' task t
it 'ctr: resume' '^exit 0$' c task resume t
it 'ctr: kill' '^exit 0$' c task kill -s TERM t
it 'ctr: kill, status' '^exit 0$' eventually is t STOPPED
it 'ctr: the exit code' 'exit code 3.*exit [03]$' c task rm t
it 'ctr: rm' '^exit 0$' c container rm t
it 'ctr: no unit is left' '^exit 0$' scopes 'ctr-*.scope'

# Without streams: criu cannot dump those of jug's shim, which are the client's own FIFOs.
# shellcheck disable=SC2086  # flags
counting() { c run -d --null-io $with $image "$1" sh -c 'i=0; while :; do i=$((i + 1)); echo $i >/count; sleep 0.2; done'; }
count() { c task exec --exec-id "e$RANDOM" "$1" cat /count; }
it 'checkpoint: one that counts' '^exit 0$' counting n
it 'checkpoint: it counts' '^exit 0$' eventually count n
it 'checkpoint: make' 'exit 0$' c container checkpoint --rw --image --task n localhost/jug/point:1
it 'checkpoint: the first goes' 'exit 0$' c task rm -f n
it 'checkpoint: and its container' '^exit 0$' c container rm n
it 'checkpoint: restore' 'exit 0$' c container restore --rw --live r localhost/jug/point:1
it 'checkpoint: it counts on' '^exit 0$' eventually count r
it 'checkpoint: the end' 'exit 0$' c task rm -f r
it 'checkpoint: the end of its container' '^exit 0$' c container rm r
stop $daemon

daemon_json systemd "$slice"
d() { timeout --foreground -k 5 "$PATIENCE" docker "$@"; }
dockerd >/run/docker-test/log 2>&1 &
daemon=$!
it 'docker: begins' '^exit 0$' eventually docker version
it 'docker: info' '^systemd 2 RUNTIME'$'\n''exit 0$' \
    d info --format '{{.CgroupDriver}} {{.CgroupVersion}} {{.DefaultRuntime}}'
it 'docker: load' 'Loaded image.*exit 0$' d load -i $out/box.tar
it 'docker: run, exit code' 'exit 7$' d run --network none --rm $image sh -c 'exit 7'
it 'docker: run, a command that is missing is 127' 'executable file not found.*exit 127$' \
    d run --network none --rm $image nosuch
it 'docker: detach' 'exit 0$' d run -d --network none --name aa -m 64m --cpus 0.5 $image sh -c "$patient"
scope_of() { unit "docker-$(d inspect --format '{{.Id}}' aa).scope" "$1"; }
it 'docker: its slice' "^Slice=$slice"$'\n''exit 0$' scope_of Slice
it 'docker: memory' '^MemoryMax=67108864'$'\n''exit 0$' scope_of MemoryMax
it 'docker: CPU' '^CPUQuotaPerSecUSec=500ms'$'\n''exit 0$' scope_of CPUQuotaPerSecUSec
it 'docker: exec' '^hello'$'\n''exit 0$' d exec aa echo hello
it 'docker: update' 'exit 0$' d update -m 32m --memory-swap 32m aa
it 'docker: memory, updated' '^MemoryMax=33554432'$'\n''exit 0$' scope_of MemoryMax
it 'docker: stop' '^aa'$'\n''exit 0$' d stop -t 5 aa
it 'docker: the exit code' '^3'$'\n''exit 0$' d inspect --format '{{.State.ExitCode}}' aa
it 'docker: rm' '^aa'$'\n''exit 0$' d rm aa
stop $daemon
daemon=''

containers_conf /etc/containers systemd
containers_storage
p() { timeout --foreground -k 5 "$PATIENCE" podman --runtime "$(basename "$RUNTIME")" "$@"; }
u() {
    timeout --foreground -k 5 "$PATIENCE" setpriv --reuid jug --regid jug --init-groups \
        env -C / HOME=/home/jug USER=jug XDG_RUNTIME_DIR=/run/user/1000 \
        DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus podman --runtime "$(basename "$RUNTIME")" "$@"
}
it 'podman: load' 'Loaded image.*exit 0' p load -i $out/box.oci
it 'podman: a container' 'exit 0$' p run -d --name a --cgroup-parent "$slice" -m 64m --cpus 0.5 $image sh -c "$patient"
libpod() { unit "libpod-$(p inspect --format '{{.Id}}' a).scope" "$1"; }
it 'podman: its slice' "^Slice=$slice"$'\n''exit 0$' libpod Slice
it 'podman: memory' '^MemoryMax=67108864'$'\n''exit 0$' libpod MemoryMax
it 'podman: update' 'exit 0$' p update -m 32m a
it 'podman: memory, updated' '^MemoryMax=33554432'$'\n''exit 0$' libpod MemoryMax
it 'podman: stop' '^a'$'\n''exit 0$' p stop -t 5 a
it 'podman: rm' '^a'$'\n''exit 0$' p rm a
echo 'jug:100000:65536' | tee /etc/subuid >/etc/subgid
# Of its own: an overlay is no place for overlays.
mount -t tmpfs -o mode=700,uid=1000,gid=1000 home /home/jug
it 'a user: load' 'Loaded image.*exit 0' u load -i $out/box.oci
it 'a user: a limit on memory' '^67108864'$'\n''exit 0$' u run --rm -m 64m $image cat /sys/fs/cgroup/memory.max
it 'a user: a container' 'exit 0$' u run -d --name a -m 64m $image sh -c "$patient"
it 'a user: exec' '^0'$'\n''exit 0$' u exec a id -u
# (runc warns of cgroups that it may not have, and has.)
it 'a user: pause' '^a'$'\n''exit 0$' quiet u pause a
it 'a user: unpause' '^a'$'\n''exit 0$' quiet u unpause a
it 'a user: stop' '^a'$'\n''exit 0$' u stop -t 5 a
it 'a user: rm' '^a'$'\n''exit 0$' u rm a
it 'a user: leaves' '^exit 0$' u system migrate
it 'nothing is left' '^exit 0$' left
