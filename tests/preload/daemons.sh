#!/usr/bin/env bash
# redis-server, memcached and nginx under the preload: every value that went in comes back, over
# loopback, and the daemon ends cleanly.
# firn-test: share=2,3 levels=0,1,2,3 timeout=600
. "$(dirname "$0")/lib.sh"
. "$here/lib_daemons.sh"

check_redis ''
check_memcached ''
check_nginx ''
if [ "$short" = 0 ]; then
    few=1 # limits are compared, not amounts of work
    limit=(prlimit --as=4294967296)
    check_redis as-4G:
    check_memcached as-4G:
    check_nginx as-4G:
    limit=(taskset -c 0)
    check_redis one-core:
fi
finish
