# Makes runc's integration suite runnable in a Debian directory: its source, its programs and its images.
# scripts/suites-runc runs it in the chroot, once. Nothing of the suite is kept in this repository.
set -euo pipefail

cd /
# apt checks the source's signature and checksums.
apt-get -qq -o Acquire::Check-Valid-Until=false update
apt-get -qq -o APT::Sandbox::User=root source runc >/dev/null
rm -rf /suite
mv /runc-*/ /suite
cd /suite
rm -rf /runc_*

# Debian builds by GOPATH, from the libraries' own packages.
export GOPATH=/gopath GOCACHE=/gopath/cache GO111MODULE=off GOFLAGS= HOME=/root
mkdir -p $GOPATH/src/github.com/opencontainers tests/cmd/_bin
cp -a /usr/share/gocode/src/. $GOPATH/src/
rm -rf $GOPATH/src/github.com/opencontainers/runc
ln -s /suite $GOPATH/src/github.com/opencontainers/runc
for program in tests/cmd/*/; do
    name=$(basename "$program")
    [ "$name" != _bin ] || continue
    (cd $GOPATH/src/github.com/opencontainers/runc/tests/cmd/"$name" && go build -tags seccomp -o "/suite/tests/cmd/_bin/$name" .) ||
        echo "$name: not built" | tee -a /suite/left-out
done
rm -rf $GOPATH

# The images: what the suite would download, from this Debian.
image=/image
pack() {
    tar -C $image --numeric-owner --owner=0 --group=0 -cf - . | xz -0 >"/suite/tests/integration/testdata/$1-amd64.tar.xz"
    rm -rf $image
}
mkdir -p $image/{bin,dev,etc,home,lib,root,tmp,usr/bin,usr/sbin,var/spool/mail,var/www}
chmod 1777 $image/tmp
chmod 700 $image/root
cp /bin/busybox $image/bin/busybox
for applet in $(busybox --list); do [ -e $image/bin/"$applet" ] || ln $image/bin/busybox $image/bin/"$applet"; done
printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false bin:x:2:2:bin:/bin:/bin/false \
    mail:x:8:8:mail:/var/spool/mail:/bin/false www-data:x:33:33:www-data:/var/www:/bin/false \
    nobody:x:65534:65534:nobody:/home:/bin/false >$image/etc/passwd
printf '%s\n' root:x:0: daemon:x:1: bin:x:2: tty:x:5: mail:x:8: www-data:x:33: utmp:x:43: users:x:100: \
    nogroup:x:65534: >$image/etc/group
pack busybox

# The other one needs a shell, the tools of util-linux and the libraries.
mkdir -p $image
{
    printf '%s\n' bin sbin lib lib64 etc/passwd etc/group etc/ld.so.conf etc/ld.so.conf.d var/tmp dev proc sys tmp root home
    dpkg -L base-files bash coreutils libc6 dash findutils gawk grep hostname libc-bin mount procps sed util-linux |
        grep -E '^/usr/(bin|sbin|lib|lib64)/' | cut -c2-
    cd /
    find usr/lib/*-linux-gnu -maxdepth 1 \( -name '*.so' -o -name '*.so.*' \)
} | sort -u | tar -C / --no-recursion --numeric-owner -cf - -T - 2>/dev/null | tar -C $image -xf -
pack debian
