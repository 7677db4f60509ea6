#!/usr/bin/env bash
# perl, lua, node, python3, bash and sort under the preload: the same output as without it.
# firn-test: levels=0,1,2,3 timeout=600
. "$(dirname "$0")/lib.sh"
. "$here/lib_programs.sh"

check_perl ''
check_lua ''
check_python ''
check_bash ''
check_sort ''
check_node ''
finish
