#!/bin/sh
# Boots a Debian with systemd in a container and lets inside.sh try packages there: run.sh DIRECTORY PACKAGE NEWER
#
# DIRECTORY keeps the Debian for the next time. Nothing that happens in it is kept.
#
# Invariant: the container has a network of its own, with no interface of this machine, and a control group of its own
# is all that is attached to.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
package=$2
newer=$3
root=$directory/root
shared=$directory/shared

if [ ! -e "$directory/complete" ]; then
    rm -rf "$root"
    mkdir -p "$root"
    mirror=$(sed -n 's/^\(deb\|URIs:\)[^h]*\(https\?:[^ ]*\).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -v security | head -n 1)
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,ethtool,socat stable "$root" \
        "${mirror:-http://deb.debian.org/debian}"
    touch "$directory/complete"
fi

rm -rf "$shared"
mkdir -p "$shared"
cp "$here/inside.sh" "$shared/"
cp "$package" "$shared/kplb.deb"
cp "$newer" "$shared/newer.deb"
: >"$root/etc/machine-id"
cat >"$root/etc/systemd/system/package-test.service" <<UNIT
[Unit]
Description=Trying packages of kplb
After=multi-user.target dbus.service
[Service]
Type=oneshot
ExecStart=/bin/sh /shared/inside.sh
StandardOutput=file:/shared/log
StandardError=inherit
ExecStopPost=/usr/bin/systemctl --no-block poweroff
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/shared"
ln -sf ../package-test.service "$root/etc/systemd/system/multi-user.target.wants/"

# What systemd-nspawn leaves of control groups where no systemd runs.
tidy() {
    for groups in $(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts); do
        for group in "$groups/payload" "$groups/supervisor"; do
            if [ -d "$group" ]; then find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
        done
    done
}
trap tidy EXIT

# Without registration, since this machine may have no systemd that runs. The file systems of the kernel are writable, so
# that one for BPF can be mounted; BPF is not among the system calls that a container usually has.
status=0
SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 timeout --kill-after=10 600 systemd-nspawn --quiet --boot --directory="$root" \
    --volatile=overlay --bind="$shared:/shared" --machine=kplb-package-test --hostname=kplb \
    --register=no --keep-unit --private-network --capability=all --system-call-filter=bpf \
    --link-journal=no --console=pipe --settings=no </dev/null >"$shared/console" 2>&1 || status=$?
cat "$shared/log" || true
if ! grep -qx 'package-test: passed' "$shared/log"; then
    echo "package-test: failed (systemd-nspawn ended with $status); see $shared/log and $shared/console" >&2
    exit 1
fi
