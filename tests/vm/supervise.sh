#!/bin/sh
# PID 1 of the VM once the root is in place: runs the job, reports its exit status, switches the machine off.
#
# ttyS0 carries what the job prints, ttyS1 the exit status alone. Both kinds of VM have these two lines.
. /run/vm/config # TERMINAL: its size, if the job is to have one
exec 4<>/dev/ttyS0 # held open, or the line would forget its settings

job() {
    (
        echo 0 >/sys/fs/cgroup/user.slice/cgroup.procs
        exec setsid --wait "$@" /bin/sh /run/vm/job
    )
}

if [ "$TERMINAL" ]; then
    # shellcheck disable=SC2086 # four words: rows R cols C
    stty -F /dev/ttyS0 sane $TERMINAL
    job --ctty <&4 >&4 2>&4 4>&-
    status=$?
else
    # A pipe, not the terminal line: the job prints as it does in CI, with no colours.
    mkfifo /run/vm/output
    stty -F /dev/ttyS0 raw -echo # bytes go out as they are
    cat /run/vm/output >&4 &
    exec 3>/run/vm/output
    job </dev/null >&3 2>&1 3>&- 4>&-
    status=$?
    exec 3>&-
    # The end of the job is the end of all it started; a daemon that kept the pipe open would hold us here for ever.
    for group in /sys/fs/cgroup/*/; do
        [ "$group" = /sys/fs/cgroup/init.scope/ ] || echo 1 >"${group}cgroup.kill"
    done
    wait
fi
stty -F /dev/ttyS0 -echo # to set anything is to wait until all has gone out (TCSADRAIN); switching off would lose it
echo "$status" >/dev/ttyS1
echo o >/proc/sysrq-trigger # at once: there is nothing to unmount, all is memory
while :; do sleep 1; done   # PID 1 must not return while the kernel is on its way out
