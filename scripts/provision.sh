#!/bin/sh
# Installs what a machine needs to build, run and test minirun: Debian 12 and later, Ubuntu 22.04 and later.
#
#     sudo scripts/provision.sh build run                  what `make run` needs
#     sudo scripts/provision.sh build run test vm clients  what `make test` needs
#
# The one list of packages: the Makefile, the Vagrantfile and CI all call this script.
# shellcheck disable=SC2086 # lists of packages are split into words on purpose; their names hold no blanks
set -eu

group() { # NAME: the packages of a group
    case $1 in
    build) # musl-tools: the programs that enter a container are static, and small
        echo gcc libc6-dev linux-libc-dev make musl-tools pkg-config
        echo python3-dev python3-venv libcap-dev libseccomp-dev
        ;;
    run) # qemu-utils, e2fsprogs and busybox-static: images are made from what these read
        echo nftables iproute2 ca-certificates
        echo qemu-utils e2fsprogs busybox-static
        ;;
    test) # what looks at containers from outside, and the linters that pip does not have
        echo clang-format procps strace conntrack tcpdump iputils-ping iptables uidmap skopeo
        ;;
    vm) # what tests/vm boots; busybox is its first program, systemd one of a test in it
        echo busybox-static kmod systemd
        ;;
    clients) # the engines that tests/clients sets on our OCI runtime, and the runtime that it is compared with;
        # golang-go: for cnitool, of which there is a source package only (tests/clients/cnitool.sh)
        echo podman conmon catatonit containernetworking-plugins iptables golang-go
        unless dockerd docker.io
        unless containerd containerd
        unless runc runc
        ;;
    bench) # the runtimes that `make bench` measures beside ours
        echo runc podman containernetworking-plugins
        ;;
    *) fail "no group '$1'; the groups are build, run, test, vm, clients and bench" ;;
    esac
}

extras() { # NAME: what a group makes good use of, and does without where the release has no such package
    case $1 in
    vm) # virtiofsd was once a part of qemu
        . /etc/os-release
        case $ID$VERSION_ID in
        debian12 | ubuntu22.04) echo qemu-system-common ;;
        *) echo virtiofsd ;;
        esac
        echo user-mode-linux qemu-system-x86 vagrant
        ;;
    bench) echo crun ;;
    esac
}

fail() {
    echo "provision.sh: $*" >&2
    exit 1
}

unless() { # PROGRAM PACKAGE: the package, if nobody else's (docker-ce, which it would replace) brought the program
    command -v "$1" >/dev/null || echo "$2"
}

missing() { # PACKAGE...: those that are not installed
    installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p')
    printf '%s\n' "$@" | grep -vxF "$installed" || :
}

known() { # PACKAGE...: those that can be installed, saying which cannot
    for package; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            echo "$package"
        else
            echo "provision.sh: this release has no $package; what needs it will be skipped" >&2
        fi
    done
}

apt() { # waits for another apt that is at work
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 "$@"
}

install() { # No service starts: in apt's own mount namespace, what packages start services with does nothing.
    [ $# = 0 ] || DEBIAN_FRONTEND=noninteractive unshare --mount --propagation private sh -c '
        for starter in /usr/sbin/invoke-rc.d /usr/bin/deb-systemd-invoke; do
            [ ! -e $starter ] || mount --bind /bin/true $starter || exit
        done
        exec apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-remove --no-install-recommends "$@"' apt-get "$@"
}

asleep() { # Nor does one that has just come start at the next boot.
    case " $packages " in
    *[[:space:]]docker.io[[:space:]]*) units='docker.service docker.socket containerd.service' ;;
    *[[:space:]]containerd[[:space:]]*) units=containerd.service ;;
    *) return 0 ;;
    esac
    ! command -v systemctl >/dev/null || systemctl --quiet disable $units
}

[ $# -gt 0 ] || set -- build run test vm clients
packages=$(for name; do group "$name"; done)
wishes=$(for name; do extras "$name"; done)

command -v apt-get >/dev/null || fail "no apt-get here; install by hand what these Debian packages hold:" $packages $wishes
packages=$(missing $packages)
wishes=$(missing $wishes)
[ "$packages$wishes" ] || exit 0

[ "$(id -u)" = 0 ] || fail "not root; run: sudo $0 $*"

# The lists of a fresh machine are absent or old: try with what is there, then once more with new ones.
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt update
install $packages || { apt update && install $packages; } || fail "could not install:" $packages
asleep
wishes=$(known $wishes)
install $wishes || { apt update && install $wishes; } || fail "could not install:" $wishes
