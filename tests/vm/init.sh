#!/bin/busybox sh
# The first program of the VM, run by busybox from the initramfs: lays out the machine that the job will see.
#
# The root is an overlay: the host's / below, read-only, and a tmpfs above. So the job finds the host's programs, the
# checkout and its virtual environment at their own paths, may write where it likes, and nothing of it is kept.
set -e
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules); do insmod "$module"; done
. /config # ROOTFS: how the host's / comes in; MODULES, CHECKOUT: where they are on the host

mount -r -t "$ROOTFS" host /lower
mount -t tmpfs tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root

# Before /tmp is covered, because these two may well lie below it.
mkdir -p "/root/lib/modules/$(uname -r)"
mount --bind "/root$MODULES" "/root/lib/modules/$(uname -r)"
mount --bind "/root$CHECKOUT" /checkout

# Real tmpfs where the host's own state would be misleading, and where overlays will be made: an overlay cannot be the
# upper layer of another.
for directory in run tmp var/tmp var/lib/minirun; do
    mkdir -p "/root/$directory"
    mount -t tmpfs tmpfs "/root/$directory"
done
chmod 1777 /root/tmp /root/var/tmp
mkdir -p "/root$CHECKOUT"
mount --move /checkout "/root$CHECKOUT"

mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue

# cgroup v2 as systemd leaves it: one tree with these options, init in a scope of its own, and its five controllers, as
# far as the kernel has them, handed to the slices.
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/init.scope /sys/fs/cgroup/user.slice
echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
for controller in cpuset cpu io memory pids; do
    ! grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done

hostname minirun-vm
ip link set lo up

mkdir /root/run/vm
cp /job /config /supervise /root/run/vm/
for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
exec switch_root /root /bin/sh /run/vm/supervise
