# Buildah with another runtime: what a user does who builds, one case after the other.
. /run/engines/kit.sh

containers_storage
# Its own defaults are above what a machine may set that lacks CAP_SYS_RESOURCE.
printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n' >/etc/containers/containers.conf
b() { timeout --foreground -k 5 "$PATIENCE" buildah "$@"; }
run() { b run --isolation oci --runtime "$RUNTIME" --network none "$@"; }
typed() { terminal "buildah run --isolation oci --runtime $RUNTIME --network none $1"; }
piped() { echo "through a pipe" | run w sh -c 'read line; echo $line'; }
# The runtime's own words, of what Buildah makes of its log; and how it ends.
refused() {
    local ended=0
    run "$@" >/tmp/refused 2>&1 || ended=$?
    grep -oE 'executable file not found in .PATH|no such file or directory|permission denied' /tmp/refused
    return $ended
}
mkdir -p /tmp/context /tmp/volume
echo inside >/tmp/volume/file
cat >/tmp/context/Containerfile <<'FILE'
FROM localhost/jug/box:1
ENV A=b
WORKDIR /made
RUN echo $A $(pwd) $(id -u) >/made/by
USER 7:8
RUN id -u; id -g
CMD ["cat", "/made/by"]
FILE
build() {
    b build --isolation oci --runtime "$RUNTIME" --network none --cgroup-parent "/$GROUP" "$@" /tmp/context 2>&1 |
        sed -E 's/^--> [0-9a-f]+/--> IMAGE/'
    return "${PIPESTATUS[0]}"
}
failing() {
    printf 'FROM localhost/jug/box:1\nRUN exit 9\n' >/tmp/context/failing
    build -f /tmp/context/failing -t localhost/jug/never:1
}

before
it 'pull' 'exit 0$' b pull -q oci-archive:$out/box.oci
it 'tag' 'exit 0$' b tag "$(b images -q | head -n 1)" localhost/jug/box:1
it 'from' '^w'$'\n''exit 0$' b from --name w --cgroup-parent "/$GROUP" localhost/jug/box:1
it 'run' '^hello world'$'\n''exit 0$' run w echo hello world
it 'run: standard input' '^through a pipe'$'\n''exit 0$' piped
it 'run: environment, directory, user' '^b /etc 7 8'$'\n''exit 0$' \
    run --env A=b --workingdir /etc --user 7:8 w sh -c 'echo $A $(pwd) $(id -u) $(id -g)'
it 'run: exit code' 'exit 7$' run w sh -c 'exit 7'
# (1.28 takes it for success.)
it 'run: a signal' 'exit [0-9]+$' run w sh -c 'kill -9 $$'
it 'run: a command that is missing' 'executable file not found.*exit [1-9]' refused w nosuch
it 'run: a path that is missing' 'no such file or directory.*exit [1-9]' refused w /no/such
it 'run: a file that is no program' 'permission denied.*exit [1-9]' refused w /plain
it 'run: on a terminal' "$on_terminal" typed "-t w sh -c '$ask'"
it 'run: a volume' '^inside'$'\n''exit 0$' run -v /tmp/volume:/v:ro w cat /v/file
it 'run: capabilities' '^CapEff:.[0-9a-f]{15}[02468ace]'$'\n''exit 0$' \
    run --cap-drop CAP_CHOWN w grep CapEff /proc/self/status
it 'run: what it writes stays' 'exit 0$' run w sh -c 'echo kept >/kept'
it 'run: and is there again' '^kept'$'\n''exit 0$' run w cat /kept
it 'commit' 'exit 0$' b commit -q w localhost/jug/made:1
it 'rm' 'exit 0$' b rm w
it 'memory: from' '^m'$'\n''exit 0$' b from --name m --memory 64m --cgroup-parent "/$GROUP" localhost/jug/made:1
it 'memory: what was committed' '^kept'$'\n''exit 0$' run m cat /kept
it 'memory: too much of it' 'exit [1-9][0-9]*$' run m sh -c 'exec tail -c 190m /dev/zero'
it 'memory: rm' 'exit 0$' b rm m
it 'build' 'COMMIT localhost/jug/built:1.*exit 0$' build -t localhost/jug/built:1
it 'build: from' '^c'$'\n''exit 0$' b from --name c localhost/jug/built:1
it 'build: what it made' '^b /made 0'$'\n''exit 0$' run c cat /made/by
it 'build: its user' '^7'$'\n''exit 0$' run c id -u
it 'build: one that fails' 'exit 9.*exit [1-9]' failing
it 'build: rm' 'exit 0$' b rm c
it 'user namespace: from' '^u'$'\n''exit 0$' \
    b from --name u --userns-uid-map 0:100000:65536 --userns-gid-map 0:100000:65536 localhost/jug/box:1
it 'user namespace: its ids' '^0 +100000 +65536'$'\n''exit 0$' run u sed 's/^ *//' /proc/self/uid_map
it 'user namespace: rm' 'exit 0$' b rm u
it 'nothing is listed' '^exit 0$' b containers -q
it 'nothing is left' '^exit 0$' left
