# Runs tests in an emulated machine, each in a process of its own, and says on the console what becomes of them.
#
# The file `tests` has a line for each group of tests: its name, the program, part of the tests' names, the mode of the
# agents in it, and what `tc` is to be told of the lab's cables. Fields are separated by tabs, and empty ones are a minus
# sign.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root KPLB_EMULATED=1
cd /run/work || exit 1

# Guest seconds for one test.
limit=900

say() { echo "kplb-vm: $*" >/dev/console; }
uptime() { cut -d ' ' -f 1 /proc/uptime; }

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
# Packages that are only unpacked have made no users.
for file in passwd group; do
    [ -e /etc/$file ] || cp /usr/share/base-passwd/$file.master /etc/$file
done
# Its device is there only with the module, so opening it loads nothing.
modprobe tun
say "kernel $(uname -r)"

tab=$(printf '\t')
while IFS=$tab read -r group program part mode cables; do
    if [ "$part" = - ]; then part=; fi
    if [ "$mode" = - ]; then unset KPLB_TEST_MODE; else export KPLB_TEST_MODE="$mode"; fi
    if [ "$cables" = - ]; then unset KPLB_CABLES; else export KPLB_CABLES="$cables"; fi
    mkdir -p "logs/$group"
    "$program" --list --format terse 2>"logs/$group/list.log" | sed -n 's/: test$//p' | grep -F -- "$part" >names
    while read -r name <&3; do
        start=$(uptime)
        log="logs/$group/$(echo "$name" | sed 's/::/./g').log"
        if timeout -k 10 "$limit" "$program" --exact "$name" --nocapture >"$log" 2>&1 </dev/null; then
            outcome=passed
        else
            outcome=failed
        fi
        say "test $outcome $start $(uptime) $group $name"
    done 3<names
done <tests

say end
sync
echo o >/proc/sysrq-trigger
sleep 60
