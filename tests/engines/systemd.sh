# With systemd, in the virtual machine: its cgroups under containerd's CRI plugin, Podman and a user's own Podman; and
# checkpoints through a shim. Few cases of each: what else engines do is shown by their own scripts.
. /run/engines/kit.sh

image=localhost/jug/box:1
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
    ps -eo comm | grep -E '^(containerd|conmon|runc|jug-oci|podman|sleep|catatonit)' | sed 's/^/process /' || true
    scopes 'cri-containerd-*' | sed 's/^/unit /' || true
    scopes 'libpod-*' | sed 's/^/unit /' || true
    find /run/runc /run/jug-oci /run/containerd/runc/* /run/containerd/jug/* -mindepth 1 2>/dev/null | sed 's/^/state /' || true
    return 0
}

before
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

# shellcheck disable=SC2086  # flags
counting() { c run -d $with $image "$1" sh -c 'i=0; while :; do i=$((i + 1)); echo $i >/count; sleep 0.2; done'; }
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

mkdir -p /etc/containers
cat >/etc/containers/containers.conf <<CONF
[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "jug-oci"]
[engine.runtimes]
jug-oci = ["$out/jug-oci"]
[containers]
log_driver = "k8s-file"
netns = "none"
CONF
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
it 'a user: pause' 'exit 0$' u pause a
it 'a user: unpause' 'exit 0$' u unpause a
it 'a user: stop' '^a'$'\n''exit 0$' u stop -t 5 a
it 'a user: rm' '^a'$'\n''exit 0$' u rm a
it 'a user: leaves' '^exit 0$' u system migrate
it 'nothing is left' '^exit 0$' left
