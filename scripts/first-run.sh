#!/bin/sh
# What `make run` runs: a shell in a real Alpine container; without a terminal, a short script that shows where it is.
set -e
minirun=$1
if [ -t 0 ] && [ -t 1 ]; then
	exec "$minirun" run --rm -it --net br0 alpine sh
fi
exec "$minirun" run --rm --net br0 alpine sh -c 'echo "# id"; id; echo "# ip addr"; ip addr; echo "# ip route"; ip route; echo "# ps"; ps'
