# containerd as a CRI server, with jug as a runtime handler: what a kubelet does with pods, one case after the other. The
# oracle is containerd's own shim with runc.
. /run/engines/kit.sh

socket=/run/containerd-test/socket
config=/run/containerd-test/config.toml
mkdir /run/containerd-test /run/logs
# A network namespace of its own, so that pods may have a network and the machine keeps its own.
ip link set lo up
# The tables of 1.x and of 2.x.
if [[ $(containerd --version) =~ \ v?1\.[67] ]]; then
    version=2 cri=io.containerd.grpc.v1.cri
    pause="[plugins.\"$cri\"]
    sandbox_image = \"localhost/jug/pause:1\""
else
    version=3 cri=io.containerd.cri.v1.runtime
    pause="[plugins.\"io.containerd.cri.v1.images\".pinned_images]
    sandbox = \"localhost/jug/pause:1\"
[plugins.\"$cri\"]"
fi
huge=''
if grep -qw hugetlb /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then huge='disable_hugetlb_controller = false'; fi
cat >$config <<CONF
version = $version
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
    address = "$socket"
[ttrpc]
    address = "$socket.ttrpc"
$pause
    # Those of this machine that containers may not have.
    restrict_oom_score_adj = true
    tolerate_missing_hugetlb_controller = true
    $huge
[plugins."$cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/run/cni"
[plugins."$cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
[plugins."$cri".containerd.runtimes.jug]
    runtime_type = "io.containerd.jug.v2"
CONF
# Where containerd looks for a shim by its runtime's name; jug-oci lies beside it.
ln -s $out/containerd-shim-jug-v2 $out/jug-oci /usr/local/bin/
mkdir /run/cni
cat >/run/cni/10-pods.conflist <<'CNI'
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
    { "type": "bridge", "bridge": "jug0", "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]] } }
] }
CNI
case $RUNTIME in
    runc) handler=runc ;;
    *) handler=jug ;;
esac

k() { timeout --foreground -k 5 "$PATIENCE" /usr/bin/python3 $out/cri.py $socket "$@"; }
about() { echo "{ \"parent\": \"/$GROUP\", \"logs\": \"/run/logs/$1\"${2:+, $2} }"; }
# pod NAME [MORE]; the ids of pods and containers are kept in files.
pod() { k pod "$1" $handler "$(about "$1" "${2-}")" >/run/id-"$1" || { cat /run/id-"$1"; return 1; }; }
id() { cat /run/id-"$1"; }
# make NAME POD MORE COMMAND...: a container, created and started.
make() {
    local name=$1 pod=$2 more=$3; shift 3
    k create "$(id "$pod")" "$pod" "$name" $image "$(about "$pod" "$more")" "$@" >/run/id-"$name" ||
        { cat /run/id-"$name"; return 1; }
    k start "$(id "$name")"
}
is() { [[ $(k status "$(id "$1")") = $2* ]]; }
status() { k status "$(id "$1")"; }
# stream NAME MORE [COMMAND...]: what a command says, or without one what the container itself says, and how it ends.
stream() {
    local name=$1 more=$2; shift 2
    k stream "$(id "$name")" "{ $more }" "$@"
}
inside() { local name=$1; shift; k exec "$PATIENCE" "$(id "$name")" "$@"; }
# The last field of a line of a container's log is what it wrote.
said() { cut -d' ' -f2,4- <"/run/logs/$1"; }
# More than fits a FIFO and a frame.
much() { stream "$1" '' sh -c 'head -c 300000 /dev/zero | tr "\\0" x' | cut -d' ' -f2 | tr -d '\n' | wc -c; }
shims() { ps -eo args | grep -cE "^[^ ]*containerd-shim-(runc|jug)-v2 .*-id $(id "$1")"; }
cgroup_of() { echo "$GROUP/$(id "$1")"; }
again() {
    kill -9 $daemon
    wait $daemon 2>/dev/null || true
    begin
}
begin() {
    containerd --config $config 2>>/run/containerd-test/log &
    daemon=$!
    eventually k version || { cat /run/containerd-test/log; exit 1; }
}
patient='trap "exit 3" TERM; echo begun; while :; do sleep 0.1; done'

before
begin
for name in box pause; do
    it "import $name" 'exit 0$' timeout "$PATIENCE" ctr -a $socket -n k8s.io image import $out/$name.oci
done
# (1.7 has one condition more.)
ready() { k ready | grep -E '^(Runtime|Network)Ready'; }
it 'ready' '^RuntimeReady True'$'\n''NetworkReady True'$'\n''exit 0$' ready
it 'a pod' '^exit 0$' pod p '"pid": "pod"'
it 'a pod: listed' '^p ready'$'\n''exit 0$' k pods
it 'a container' '^exit 0$' make a p '"pid": "pod", "env": { "A": "b" }, "memory": 67108864, "quota": 50000, "period": 100000' \
    sh -c "$patient"
it 'a container: status' '^running 0'.*'exit 0$' status a
it 'a container: exec' '^hello'$'\n''exit 0$' inside a echo hello
it 'a container: exec, exit code' 'exit 9$' inside a sh -c 'exit 9'
it 'a container: exec, a command that is missing' 'executable file not found.*exit 1$' inside a nosuch
it 'a container: exec, a time limit' 'DEADLINE_EXCEEDED.*exit 1$' k exec 1 "$(id a)" sleep 60
it 'exec with streams' '^out one'$'\n''err two'$'\n''exit 7$' stream a '' sh -c 'echo one; echo two >&2; exit 7'
it 'exec with streams: input' '^out got wool'$'\n''exit 5$' \
    stream a '"stdin": true, "input": "wool\n"' sh -c 'read line; echo got $line; exit 5'
it 'exec with streams: much of it' '^300000 ?'$'\n''exit 0$' much a
it 'exec with streams: a command that is missing' 'executable file not found.*exit 1$' stream a '' nosuch
it 'exec with streams: a terminal' '^out /dev/pts/[0-9]+'$'\n''out 31 117'$'\n''out wool'$'\n''out got wool'$'\n''exit 5$' \
    stream a '"stdin": true, "tty": true, "size": [117, 31], "after": "117", "input": "wool\n"' sh -c "$ask"
it 'a container: environment' '^b'$'\n''exit 0$' inside a sh -c 'echo $A'
it 'a container: log' '^stdout begun'$'\n''exit 0$' said p/a.log
it 'a container: memory' '^67108864'$'\n''exit 0$' limit "$(cgroup_of a)" memory.max memory/memory.limit_in_bytes
it 'a container: CPU' '^50000.*exit 0$' limit "$(cgroup_of a)" cpu.max cpu/cpu.cfs_quota_us
it 'a container: update' '^exit 0$' k update "$(id a)" 60000 33554432
it 'a container: memory, updated' '^33554432'$'\n''exit 0$' limit "$(cgroup_of a)" memory.max memory/memory.limit_in_bytes
it 'a container: CPU, updated' '^60000.*exit 0$' limit "$(cgroup_of a)" cpu.max cpu/cpu.cfs_quota_us
it 'a container: stats' '^CPU True memory True'$'\n''exit 0$' k stats "$(id a)"
it 'another one in the same pod' '^exit 0$' make b p '"pid": "pod"' sh -c "$patient"
# What either has just forked still has its name, but another parent.
it 'another one: sees the first' '^2'$'\n''exit 0$' \
    inside b sh -c 'ps -o ppid,args | grep -c "^ *0 sh -c [t]rap .exit 3"'
it 'another one: and the pod itself' '^1 sh'$'\n''exit 0$' inside b sh -c 'ps -o pid,comm | grep -oE "^ *1 sh" | tr -s " " | sed "s/^ //"'
it 'one shim for the pod' '^1'$'\n''exit 0$' shims p
it 'one with a terminal' '^exit 0$' make t p '"pid": "pod", "tty": true' sh -c 'tty; exit 4'
it 'one with a terminal: its end' '^exit 0$' eventually is t 'exited 4'
it 'one with a terminal: log' '^stdout /dev/pts/[0-9]+'$'\n''exit 0$' said p/t.log
it 'attach: a container' '^exit 0$' make i p '"pid": "pod", "stdin": true' \
    sh -c 'while read line; do echo got $line; done; exit 6'
it 'attach' '^out got wool'$'\n''exit 0$' stream i '"stdin": true, "input": "wool\n", "leave": "wool"'
it 'attach: again' '^out got yarn'$'\n''exit 0$' stream i '"stdin": true, "input": "yarn\n", "leave": "yarn"'
it 'attach: it is still there' '^running 0.*exit 0$' status i
it 'attach: log' '^stdout got wool'$'\n''stdout got yarn'$'\n''exit 0$' said p/i.log
it 'attach: rm' '^exit 0$' k rm "$(id i)"
it 'attach: input once' '^exit 0$' make o p '"pid": "pod", "stdin": true, "stdin_once": true' \
    sh -c 'while read line; do echo got $line; done; exit 6'
it 'attach: input once, a line' '^out got wool'$'\n''exit 0$' stream o '"stdin": true, "input": "wool\n", "leave": "wool"'
it 'attach: input once, its end' '^exit 0$' eventually is o 'exited 6'
it 'attach: on a terminal, a container' '^exit 0$' make w p '"pid": "pod", "stdin": true, "tty": true' \
    sh -c 'read line; stty size; echo got $line; exit 5'
it 'attach: on a terminal' '^out wool'$'\n''out 31 117'$'\n''out got wool'$'\n''exit 0$' \
    stream w '"stdin": true, "tty": true, "size": [117, 31], "input": "wool\n"'
it 'attach: on a terminal, its end' '^exit 0$' eventually is w 'exited 5'
# A kernel may have no cpuset controller (user-mode Linux has one processor).
cpus='"cpus": "0",'
if [ -e /sys/fs/cgroup/cgroup.controllers ] && ! grep -qw cpuset /sys/fs/cgroup/cgroup.controllers; then cpus=''; fi
it 'limits' '^exit 0$' make l p "\"oom\": 500, $cpus \"shares\": 512, \"user\": 7, \"readonly\": true,
    \"no_new_privs\": true, \"seccomp\": 0, \"drop\": [\"ALL\"]" sh -c "$patient"
it 'limits: of the process' '^500'$'\n''0'$'\n''7 7'$'\n''0000000000000000'$'\n''1'$'\n''2'$'\n''exit 0$' inside l sh -c '
    cat /proc/self/oom_score_adj; sed -n "s/^Cpus_allowed_list:.//p" /proc/self/status; echo $(id -u) $(id -g)
    sed -nE "s/^(CapBnd|NoNewPrivs|Seccomp):.//p" /proc/self/status'
it 'limits: a read-only root' 'Read-only file system.*exit [1-9]' inside l touch /x
# As a weight, runc 1.1 has 20 for them, by a straight line; newer runtimes agree on 59 (docs/deviations.md).
shares() { limit "$(cgroup_of l)" cpu.weight cpu/cpu.shares | sed 's/^20$/59/'; }
it 'limits: shares' '^(59|512)'$'\n''exit 0$' shares
if [ "$huge" ]; then
    it 'limits: huge pages' '^exit 0$' make h p '"hugepages": { "2MB": 4194304 }, "unified": { "memory.high": "50331648" }' \
        sh -c "$patient"
    it 'limits: huge pages, the limit' '^4194304'$'\n''exit 0$' cat "/sys/fs/cgroup/$(cgroup_of h)/hugetlb.2MB.max"
    it 'limits: unified' '^50331648'$'\n''exit 0$' cat "/sys/fs/cgroup/$(cgroup_of h)/memory.high"
else
    say "huge pages and unified limits: no cgroup v2 here"
fi
it 'one that fails' 'no such file or directory.*exit 1$' make x p '"pid": "pod"' /no/such
it 'out of memory' '^exit 0$' make m p '"memory": 20971520' sh -c 'sleep 1; exec tail -c 90m /dev/zero'
it 'out of memory: status' '^exit 0$' eventually is m 'exited 137 OOMKilled'
it 'restart of containerd' '^exit 0$' again
it 'restart: exec' '^hello'$'\n''exit 0$' inside a echo hello
it 'restart: status' '^running 0'.*'exit 0$' status b
it 'stop' '^exit 0$' k stop "$(id a)" 20
it 'stop: status' '^exited 3 Error'$'\n''exit 0$' status a
it 'rm' '^exit 0$' k rm "$(id a)"
it 'stop: by force' '^exit 0$' make f p '"pid": "pod"' sh -c 'trap "" TERM; while :; do sleep 1; done'
it 'stop: by force, it goes' '^exit 0$' k stop "$(id f)" 1
it 'stop: by force, status' '^exited 137 Error'$'\n''exit 0$' status f
# Of CNI's bridge plugin; user-mode Linux has no bridges.
bridges=''
if ip link add jug1 type bridge 2>/dev/null; then
    ip link del jug1
    bridges=1
else
    say "pods with a network: this kernel has no bridges"
fi
if [ "$bridges" ]; then
    it 'a pod with a network' '^exit 0$' pod n '"network": "pod", "hostname": "lamb"'
    it 'a pod with a network: a container' '^exit 0$' make na n '"network": "pod"' sh -c "$patient"
    it 'a pod with a network: its address' '^10\.88\.'.*'exit 0$' inside na sh -c 'ip -4 -o addr show dev eth0 | grep -oE "10\.88\."'
    it 'a pod with a network: its host name' '^lamb'$'\n''exit 0$' inside na hostname
fi
# Since 1.7; on a network of the pod's own, which belongs to the user namespace.
if [[ $(containerd --version) =~ \ v?1\.6 ]]; then
    say "user namespaces of pods: not in this version"
elif [ "$bridges" ]; then
    userns='"network": "pod", "userns": 100000'
    it 'a user namespace' '^exit 0$' pod u "$userns"
    it 'a user namespace: a container' '^exit 0$' make ua u "$userns" sh -c "$patient"
    it 'a user namespace: its ids' '^0 100000 65536'$'\n''exit 0$' inside ua awk '{ print $1, $2, $3 }' /proc/self/uid_map
    it 'a user namespace: owner of its files' '^0 0'$'\n''exit 0$' inside ua stat -c '%u %g' /etc/motd
fi
for name in p n u; do
    [ -e /run/id-$name ] || continue
    it "stop pod $name" '^exit 0$' k stop-pod "$(id $name)"
    it "rm pod $name" '^exit 0$' k rm-pod "$(id $name)"
done
it 'nothing is listed' '^exit 0$' k list
it 'no pod is listed' '^exit 0$' k pods
ip link del jug0 2>/dev/null || true
stop $daemon
it 'nothing is left' '^exit 0$' left
