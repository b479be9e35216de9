#!/bin/sh
# What becomes of a node when kplb's package is installed, started, upgraded, removed and purged; as root in a Debian that
# was booted for it, by run.sh.
#
# The node is 198.18.0.11. A client, another backend and the switch between them are namespaces: a switch in the node's own
# would answer for the node's addresses.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER=

step() { echo "package-test: $*"; }

fail() {
    echo "package-test: FAILED: $*"
    journalctl --no-pager --unit 'kplb@*' | tail -n 60 || true
    exit 1
}

# Waits until a command succeeds: until SECONDS COMMAND...
until_ok() {
    left=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.1
    done
}

# The interface $2 of the host $1, at the switch.
host() {
    ip link add "$2" type veth peer name "to-$1" netns switch
    ip -netns switch link set "to-$1" master br0 up
    ip netns exec switch ethtool --offload "to-$1" tx off >/dev/null
    ethtool --offload "$2" tx off >/dev/null
}

neighbour() {
    ip netns add "$1"
    host "$1" "inside-$1"
    ip link set "inside-$1" netns "$1" name eth0
    ip -netns "$1" link set lo up
    ip -netns "$1" link set eth0 up
    ip -netns "$1" address add "$2/24" dev eth0
}

network() {
    ip link set lo up
    ip netns add switch
    ip -netns switch link add br0 type bridge
    ip -netns switch link set br0 up
    host node eth0
    ip link set eth0 up
    ip address add 198.18.0.11/24 dev eth0
    neighbour client 198.18.0.21
    neighbour cp2 198.18.0.12
    ip netns exec cp2 socat TCP-LISTEN:6443,bind=198.18.0.12,reuseaddr,fork EXEC:/bin/cat &
    socat TCP-LISTEN:6443,bind=198.18.0.11,reuseaddr,fork EXEC:/bin/cat &
}

# New connections of a client to the VIP are answered; so many that both backends have some.
answers() {
    for _ in 1 2 3 4 5 6 7 8; do
        answer=$(echo hello | ip netns exec client socat -t 3 - TCP:198.18.0.100:6443,connect-timeout=3)
        [ "$answer" = hello ] || return 1
    done
}

# The same of a client on the node itself, which is led at its socket.
answers_here() {
    # In the control group that is attached to, as $$ would not be.
    answer=$(sh -c 'echo $$ >"$0/cgroup.procs"; echo hello | socat -t 3 - TCP:198.18.0.100:6443,connect-timeout=3' "$node")
    [ "$answer" = hello ]
}

main_pid() { systemctl show --property MainPID --value kplb@eth0; }

is_new() {
    pid=$(main_pid)
    [ "$pid" != 0 ] && [ "$pid" != "$1" ] && systemctl --quiet is-active kplb@eth0
}

is_master() { kplb status --json | grep -Eq '"state": ?"master"'; }

# Nothing of kplb is left on the node but files.
is_clean() {
    if ip -details link show eth0 | grep -q 'prog/xdp'; then return 1; fi
    if tc filter show dev eth0 egress 2>/dev/null | grep -q kplb; then return 1; fi
    if ip address show dev eth0 | grep -q 198.18.0.100; then return 1; fi
    [ -z "$(find /sys/fs/bpf -mindepth 1 -path '*kplb*' -not -type d 2>/dev/null)" ]
}

network
mkdir -p /sys/fs/bpf
mount -t bpf bpf /sys/fs/bpf
# Not at the root of the control groups: in a container that is part of a machine's, and everybody is in it.
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$groups" ] || fail 'no control groups of version 2'
node=$groups/package-test
mkdir -p "$node"

step 'install: nothing is started, and without a configuration nothing can be'
dpkg --install /shared/kplb.deb
[ "$(systemctl list-units --all --plain --no-legend 'kplb@*')" = '' ] || fail 'a unit was started'
if systemctl start kplb@eth0; then fail 'it started without a configuration'; fi
is_clean || fail 'something is attached'
[ -e /etc/kplb/kplb.toml.example ] || fail 'no example'

step 'start'
mkdir -p /etc/systemd/system/kplb@.service.d
printf '[Service]\nEnvironment=KPLB_CGROUP=%s\n' "$node" >/etc/systemd/system/kplb@.service.d/test.conf
systemctl daemon-reload
# What XDP in the driver sends over an interface like these is delivered only if there is such a program at the other end.
echo 'KPLB_OPTIONS="--mode generic"' >/etc/default/kplb
cat >/etc/kplb/kplb.toml <<'TOML'
[vrrp]
peers = ["198.18.0.11", "198.18.0.12"]
[metrics]
[[service]]
name = "api"
vip = "198.18.0.100:6443"
persistence = "connection"
    [service.check]
    type = "tcp"
    [[service.backend]]
    name = "cp1"
    address = "198.18.0.11:6443"
    [[service.backend]]
    name = "cp2"
    address = "198.18.0.12:6443"
TOML
kplb check /etc/kplb/kplb.toml
systemctl enable --now kplb@eth0 || fail 'it did not start'
until_ok 20 answers || fail 'the VIP does not answer'
until_ok 20 answers_here || fail 'the VIP does not answer clients on the node'
kplb status
kplb status | grep -q '^eth0  generic XDP' || fail 'its options are not heeded'
kplb status --json | grep -q '"flows_opened": *[1-9]' || fail 'no flow was opened'
systemctl show --property StatusText,WatchdogUSec,NRestarts kplb@eth0
journalctl --no-pager --unit kplb@eth0 | grep -E 'WARN|ERROR' && fail 'there are warnings'
pid=$(main_pid)
grep -E '^(VmRSS|VmLck|CapEff|NoNewPrivs|Seccomp):' "/proc/$pid/status"
resident=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
[ "$resident" -le 12288 ] || fail "the agent takes $resident KiB"

# A connection that lives through all that follows, up to the stop.
(while sleep 0.1; do echo tick; done) | ip netns exec client socat - TCP:198.18.0.100:6443 >/run/ticks &
n_ticks() { wc -l </run/ticks; }
has_more_than() { [ "$(n_ticks)" -gt "$1" ]; }
goes_on() { until_ok 10 has_more_than "$(n_ticks)"; }
goes_on || fail 'the connection is silent'

step 'restart: another agent, the same service, the same connections'
systemctl restart kplb@eth0 || fail 'it did not restart'
is_new "$pid" || fail 'no other agent'
goes_on || fail 'a connection is lost by a restart'
answers || fail 'the VIP does not answer after a restart'

step 'reload: another configuration, or none that is wrong'
pid=$(main_pid)
sed -i 's/"cp2"/"other"/' /etc/kplb/kplb.toml
systemctl reload kplb@eth0 || fail 'it did not reload'
kplb status | grep -q other || fail 'the configuration is not followed'
cp /etc/kplb/kplb.toml /run/good.toml
echo bogus >>/etc/kplb/kplb.toml
if systemctl reload kplb@eth0; then fail 'a configuration that is wrong was taken'; fi
cp /run/good.toml /etc/kplb/kplb.toml
[ "$(main_pid)" = "$pid" ] || fail 'the agent ended'
goes_on || fail 'a connection is lost by a reload'

step 'upgrade: another agent of another version'
pid=$(main_pid)
dpkg --install /shared/newer.deb
is_new "$pid" || fail 'the old agent still runs, or none'
goes_on || fail 'a connection is lost by an upgrade'
answers || fail 'the VIP does not answer after the upgrade'

step 'an agent that is killed is started again'
pid=$(main_pid)
kill -KILL "$pid"
until_ok 30 is_new "$pid" || fail 'no other agent'
goes_on || fail 'a connection is lost with an agent'
until_ok 20 answers || fail 'the VIP does not answer after a kill'

step 'an agent that hangs is started again, and forwarding goes on meanwhile'
pid=$(main_pid)
# The clients know where the VIP is. Nobody tells them while the agent hangs: that is what the fence is for.
until_ok 20 is_master || fail 'it is not master again'
answers || fail 'the VIP does not answer'
kill -STOP "$pid"
answers || fail 'the VIP does not answer while the agent hangs'
until_ok 60 is_new "$pid" || fail 'no other agent'
until_ok 20 answers || fail 'the VIP does not answer after a hang'

step 'stop: everything is taken away'
systemctl stop kplb@eth0
is_clean || fail 'something is left'
systemctl start kplb@eth0
until_ok 20 answers || fail 'the VIP does not answer'

step 'remove: everything is taken away, the configuration stays'
dpkg --remove kplb
is_clean || fail 'something is left'
[ -e /etc/kplb/kplb.toml ] || fail 'the configuration is gone'
[ ! -e /usr/bin/kplb ] || fail 'the program is still there'

step 'purge: the configuration goes'
dpkg --purge kplb
for path in /etc/kplb /etc/default/kplb /run/kplb /etc/systemd/system/multi-user.target.wants/kplb@eth0.service; do
    if [ -e "$path" ] || [ -L "$path" ]; then fail "$path is still there"; fi
done
echo 'package-test: passed'
