# Podman with another runtime, as a user without privilege: user namespaces by newuidmap(1), no cgroup of its own.
. /run/engines/kit.sh

home=/tmp/lamb
echo 'lamb:x:4711:4711::/tmp/lamb:/bin/sh' >>/etc/passwd
echo 'lamb:x:4711:' >>/etc/group
echo 'lamb:100000:65536' | tee /etc/subuid >/etc/subgid
mkdir -p $home/volume /run/user/4711
echo inside >$home/volume/file
containers_conf $home/.config/containers cgroupfs
chown -R 4711:4711 $home /run/user/4711
chmod 700 /run/user/4711
p() {
    timeout --foreground -k 5 "$PATIENCE" setpriv --reuid 4711 --regid 4711 --clear-groups --inh-caps=-all \
        env -C / HOME=$home USER=lamb XDG_RUNTIME_DIR=/run/user/4711 podman --runtime "$RUNTIME" "$@"
}
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
run() { p run "$@"; }
status() { p inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$1"; }
logs() { p logs "$1" 2>&1 | sort; }
piped() { echo "through a pipe" | run --rm -i $image cat; }
on_a_terminal() {
    terminal "setpriv --reuid 4711 --regid 4711 --clear-groups --inh-caps=-all \
        env -C / HOME=$home USER=lamb XDG_RUNTIME_DIR=/run/user/4711 podman --runtime $RUNTIME $1"
}

before
it 'load' 'Loaded image.*exit 0' p load -i $out/box.oci
it 'run' '^hello world'$'\n''exit 0$' run --rm $image echo hello world
it 'run: who it is' '^0 0'$'\n''0 4711 1'$'\n''1 100000 65536'$'\n''exit 0$' \
    run --rm $image sh -c 'echo $(id -u) $(id -g); awk "{ print \$1, \$2, \$3 }" /proc/self/uid_map'
it 'run: with its own id' '^4711'$'\n''exit 0$' run --rm --userns keep-id $image id -u
it 'run: another user' '^7 8'$'\n''exit 0$' run --rm -u 7:8 $image sh -c 'echo $(id -u) $(id -g)'
it 'run: standard input' '^through a pipe'$'\n''exit 0$' piped
it 'run: exit code' 'exit 7$' run --rm $image sh -c 'exit 7'
it 'run: a command that is missing is 127' 'executable file not found.*exit 127$' run --rm $image nosuch
it 'run: a file that is no program is 126' 'permission denied.*exit 126$' run --rm $image /plain
it 'run: on a terminal' "$on_terminal" on_a_terminal "run -it --rm $image sh -c '$ask'"
it 'run: a read-only root' 'Read-only file system.*exit 1$' run --rm --read-only $image touch /x
it 'run: a tmpfs' '^tmpfs.*exit 0$' run --rm --tmpfs /t:size=1m $image sh -c 'df /t | grep -o ^tmpfs'
it 'run: a volume' '^inside'$'\n''exit 0$' run --rm -v $home/volume:/v:ro $image cat /v/file
it 'run: a volume, written' '^exit 0$' run --rm -v $home/volume:/v $image touch /v/new
it 'run: a volume, the owner' '^4711 4711'$'\n''exit 0$' stat -c '%u %g' $home/volume/new
it 'run: capabilities' '^CapEff:.0000000000000400'$'\n''exit 0$' \
    run --rm --cap-drop all --cap-add net_bind_service $image grep CapEff /proc/self/status
it 'run: no new privileges, seccomp' '^NoNewPrivs:.1'$'\n''Seccomp:.2'$'\n''exit 0$' \
    run --rm --security-opt no-new-privileges $image grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
it 'detach' 'exit 0$' lamb a
it 'ps' '^a'$'\n''exit 0$' p ps --format '{{.Names}}' --filter status=running
it 'logs' '^err'$'\n''out'$'\n''exit 0$' logs a
it 'exec' '^hello'$'\n''exit 0$' p exec a echo hello
it 'exec: exit code' 'exit 9$' p exec a sh -c 'exit 9'
it 'exec: a command that is missing is 127' 'executable file not found.*exit 127$' p exec a nosuch
it 'exec: its ids' '^0 4711 1'$'\n''1 100000 65536'$'\n''exit 0$' p exec a awk '{ print $1, $2, $3 }' /proc/self/uid_map
it 'exec: on a terminal' "$on_terminal" on_a_terminal "exec -it a sh -c '$ask'"
# (runc 1.1 without a cgroup warns there, of its own freezer.)
it 'another container in its namespaces' '^sh -c echo out'$'\n''exit 0$' \
    quiet run --rm --pid container:a --ipc container:a $image sh -c 'ps -o args | grep -o "^sh -c [e]cho out"'
it 'kill: a signal that it handles' 'exit 0$' p kill -s TERM a
it 'kill: the exit code' '^3'$'\n''exit 0$' p wait a
it 'start again' '^a'$'\n''exit 0$' p start a
it 'stop' '^a'$'\n''exit 0$' p stop -t 5 a
it 'stop: the exit code' '^exited 3'$'\n''exit 0$' status a
it 'rm' '^a'$'\n''exit 0$' p rm a
it 'rm: forced' 'exit 0$' lamb c
it 'rm: forced, what is left' '^exit 0$' eventually p rm -f -t 0 c
it 'nothing is listed' '^exit 0$' p ps -aq
it 'the user leaves' '^exit 0$' p system migrate
it 'nothing is left' '^exit 0$' left
