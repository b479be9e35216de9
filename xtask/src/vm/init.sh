#!/bin/busybox sh
# The first process of an emulated machine: mounts what it shares with its host, and goes on with run.sh there.
set -eu
export PATH=/bin
/bin/busybox --install -s /bin
. /settings

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order

share() {
    mkdir -p "$2"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,$3" "$1" "$2"
}

# Whatever is written is written to memory.
share root /lower ro,cache=loose
mkdir /over /new
mount -t tmpfs tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work overlay /new

for directory in proc sys dev run tmp; do mkdir -p "/new/$directory"; done
for directory in proc sys dev; do mount --move "/$directory" "/new/$directory"; done
for directory in run tmp; do mount -t tmpfs tmpfs "/new/$directory"; done
share modules "/new/lib/modules/$(uname -r)" ro,cache=loose
share work /new/run/work rw
# Where it is on the host: programs know each other by their paths.
share target "/new$target" ro,cache=loose

# Afterwards this is the root of the kernel's own helpers, too: of modprobe, above all.
exec switch_root /new /bin/sh /run/work/run.sh
