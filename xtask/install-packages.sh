#!/bin/sh
# Installs Debian packages, and asks nothing: install-packages.sh PACKAGE...
#
# Invariant: no service of theirs is started or enabled by it, and whatever way it ends, the policy about that is
# again what it was.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Maintainer scripts ask this program before they start a service, and 101 forbids it:
# https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
policy=/usr/sbin/policy-rc.d
aside=$policy.before-kplb
mark='written by install-packages.sh of kplb'

restore_policy() {
    rm -f "$policy"
    if [ -e "$aside" ] || [ -L "$aside" ]; then mv "$aside" "$policy"; fi
}

forbid_starting() {
    # One that a killed run has left is not the administrator's.
    if { [ -e "$policy" ] || [ -L "$policy" ]; } && ! grep -qs "$mark" "$policy"; then mv "$policy" "$aside"; fi
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

is_installed() {
    dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

new=''
for package in "$@"; do is_installed "$package" || new="$new $package"; done

apt-get update
# Whether users other than root may capture: nobody has to. Who has decided that already has decided it.
if ! is_installed wireshark-common && [ -x /usr/bin/debconf-set-selections ]; then
    echo 'wireshark-common wireshark-common/install-setuid boolean false' | debconf-set-selections
fi

trap restore_policy EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
forbid_starting
apt-get install --yes --no-install-recommends "$@"

# Debian enables what it installs: the service would run from the next boot on.
for package in $new; do
    for file in $(dpkg --listfiles "$package"); do
        case $file in
        */systemd/system/*.service | */systemd/system/*.socket | */systemd/system/*.timer)
            if command -v systemctl >/dev/null; then systemctl --quiet --no-reload disable "${file##*/}"; fi
            ;;
        /etc/init.d/*)
            update-rc.d "${file##*/}" disable
            ;;
        esac
    done
done
