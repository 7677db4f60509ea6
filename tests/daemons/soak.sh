#!/usr/bin/env bash
# Redis and nginx together for long, both tiers at work: no error, and nothing grows. FIRN_SOAK_SECONDS says how long.
. "$(dirname "$0")/lib.sh"

if need soak redis-server nginx python3; then
    "$daemons_here/soak.py" "$FIRN_LIB" "${FIRN_SOAK_SECONDS:-$((short ? 60 : 600))}" \
        "${FIRN_DAEMON_OPTIONS:-cold=on:cold_after=1:mesh=auto}" || failures=1
fi
finish
