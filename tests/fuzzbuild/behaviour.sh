#!/usr/bin/env bash
# firn-test: levels=2 timeout=300
# What a right program sees, the options, libdislocator's variables, determinism, the library itself.
. "$(dirname "$0")/lib.sh"
test_lib=${FIRN_FUZZ_TEST_LIB:-$FIRN_BUILD/test/libfirn-fuzz.so}
no_markers=126 # every capability but guard markers

fine() { # NAME LIBRARY OPTIONS PROGRAM ARG...
    local name=$1
    shift
    under "$@"
    check "$name" "status $status: $(tail -n 3 "$out") $(head -c 300 "$err")" \
        test "$status:$(tail -n 1 "$out")" = 0:fine
}

says() { # NAME PATTERN FILE
    check "$1" "got: $(head -c 400 "$3")" grep -q -e "$2" "$3"
}

# ---- right programs

for options in "" align=16 place=left revoke=all:quarantine=1m revoke=all:quarantine=0 revoke=0 \
    fill=off:depth=1 fill=1:free_fill=2; do
    fine "api ($options)" "$lib" "$options" "$programs/behave" api
    fine "churn ($options)" "$lib" "$options" "$programs/behave" churn 1
    fine "threads and forks ($options)" "$lib" "$options" "$programs/behave" threads
done
fine "the program's SIGSEGV handler" "$lib" "" "$programs/behave" handler
fine "vector moves, exact placement" "$lib" "" "$programs/vectors"
fine "vector moves, align=16" "$lib" align=16 "$programs/vectors"
for how in beyond freed crooked; do
    under "$lib" "" "$programs/vectors" "$how"
    check "vector move $how" "status $status" test "$status" = 139
    says "vector move $how is reported" "ERROR: AddressSanitizer" "$err"
done

# ---- without guard markers: mprotect, within a VMA budget

export FIRN_TEST_CAPS=$no_markers
fine "churn without markers" "$test_lib" "" "$programs/behave" churn 2
fine "threads without markers" "$test_lib" "" "$programs/behave" threads
fine "beyond the VMA budget" "$test_lib" "" "$programs/behave" mappings
for case in read_r1_10 uaf_read_10 uaf_read_3m write_l1_10 double_free; do
    under "$test_lib" "" "$programs/bugs" "$case" wrong
    check "$case without markers" "status $status" test "$status" -gt 128
    says "$case without markers is reported" "ERROR: AddressSanitizer" "$err"
done
under "$test_lib" verbose=1 "$programs/behave" addresses
says "verbose=1 says which guards" "seed 0, mprotect guards" "$err"
unset FIRN_TEST_CAPS

# ---- small address spaces

for megabytes in 64 256 1024; do
    under "$lib" "" prlimit --as=$((megabytes << 20)) "$programs/behave" churn 3
    check "address space of $megabytes MB" "status $status: $(head -c 300 "$out" "$err")" \
        test "$(tail -n 1 "$out")" = fine
done

# ---- options

under "$lib" max_size=1000 "$programs/behave" limit 1001
says "max_size" refused "$out"
under "$lib" max_size=1000 "$programs/behave" limit 1000
says "max_size lets pass" given "$out"
under "$lib" max_total=1m "$programs/behave" limit 2000000
says "max_total" refused "$out"
under "$lib" "" "$programs/behave" limit 1200000000
says "the default limit is libdislocator's" refused "$out"
under "$lib" max_size=1000:on_limit=abort "$programs/behave" limit 1001
check "on_limit=abort" "status $status" test "$status" = 134
says "on_limit=abort says why" "allocation-size-too-big" "$err"
under "$lib" calloc_overflow=null "$programs/behave" calloc_overflow
says "calloc_overflow=null" fine "$out"
fine "fill" "$lib" fill=17 "$programs/behave" fill 17
fine "fill by default" "$lib" "" "$programs/behave" fill 204
under "$lib" revoke=4 "$programs/behave" read_freed 3
check "revoke=4: the fourth free is revoked" "status $status" test "$status" = 139
under "$lib" revoke=4 "$programs/behave" read_freed 4
check "revoke=4: the fifth is not" "status $status" test "$status" = 0
under "$lib" revoke=all "$programs/behave" read_freed 5000
check "revoke=all: every free is" "status $status" test "$status" = 139
under "$lib" "" "$programs/behave" read_freed 255
check "by default 256 are" "status $status" test "$status" = 139
fine "an input of a persistent target after another" "$lib" revoke=4 "$programs/behave" stop 0
fine "every input begins afresh" "$lib" revoke=4 "$programs/behave" stop 1
under "$lib" "plcae=left:align=3:seed" "$programs/behave" addresses
says "a misspelt key names the closest" "unknown option 'plcae' ignored; closest is 'place'" "$err"
says "a wrong value names the range" "align: value '3' ignored; expected 1, 2, 4, 8 or 16" "$err"
under "$lib" "plcae=left:abort_conf=1" "$programs/behave" addresses
check "abort_conf=1" "status $status" test "$status" = 134

# ---- libdislocator's variables

AFL_LD_LIMIT_MB=2 under "$lib" "" "$programs/behave" limit 3000000
says "AFL_LD_LIMIT_MB" refused "$out"
AFL_LD_LIMIT_MB=4 under "$lib" "" "$programs/behave" limit 3000000
says "AFL_LD_LIMIT_MB lets pass" given "$out"
AFL_LD_LIMIT_MB=2 AFL_LD_HARD_FAIL=1 under "$lib" "" "$programs/behave" limit 3000000
check "AFL_LD_HARD_FAIL" "status $status" test "$status" = 134
AFL_LD_NO_CALLOC_OVER=1 under "$lib" "" "$programs/behave" calloc_overflow
says "AFL_LD_NO_CALLOC_OVER" fine "$out"
AFL_ALIGNED_ALLOC=1 under "$lib" "" "$programs/behave" addresses
says "AFL_ALIGNED_ALLOC" '^0x[0-9a-f]*0 0x[0-9a-f]*0 0x[0-9a-f]*0 ' "$out"
AFL_LD_LIMIT_MB=x under "$lib" "" "$programs/behave" addresses
says "a wrong AFL_LD_LIMIT_MB" "AFL_LD_LIMIT_MB: value 'x' ignored" "$err"

# ---- the same addresses in every run, others with another seed

under "$lib" "" "$programs/behave" addresses && first=$(cat "$out")
under "$lib" "" "$programs/behave" addresses
check "one seed, one layout" "$first, then $(cat "$out")" test "$first" = "$(cat "$out")"
FIRN_SEED=5 under "$lib" "" "$programs/behave" addresses
check "another seed, another layout" "$(cat "$out")" test "$first" != "$(cat "$out")"
FIRN_SEED=5 under "$lib" "" "$programs/bugs" uaf_read_10 wrong
says "the report names the seed" "FIRN_SEED=5" "$err"

# ---- the library itself

under "$lib" "" "$programs/behave" mappings
check "few mappings after thousands of blocks" "$(cat "$out")" \
    test "$(sed -n 's/ mappings//p' "$out")" -lt 60
check "needs libc and nothing else" "$(readelf -dW "$lib" | grep NEEDED)" \
    test "$(readelf -dW "$lib" | grep -c NEEDED):$(readelf -dW "$lib" | grep -c 'NEEDED.*libc.so')" \
    = 1:1
under "$lib" "" sh -c 'ls /proc/self/task | wc -l'
says "no thread of its own" '^1$' "$out"
finish
