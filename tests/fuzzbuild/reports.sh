#!/usr/bin/env bash
# firn-test: levels=2 timeout=300
# Every bug of bugs.c and mismatch.cc dies with the right report; every right twin survives silently.
. "$(dirname "$0")/lib.sh"

# case | options | signal | bug | what the report says besides ("-": nothing)
cases() {
    cat <<'END'
read_r1_10|-|11|heap-buffer-overflow|READ of size 1 .* 0 bytes to the right of 10-byte region
read_r1_16|-|11|heap-buffer-overflow|READ of size 1 .* 0 bytes to the right of 16-byte region
read_r1_24|-|11|heap-buffer-overflow|0 bytes to the right of 24-byte region
read_r1_4096|-|11|heap-buffer-overflow|0 bytes to the right of 4096-byte region
read_r1_5001|-|11|heap-buffer-overflow|0 bytes to the right of 5001-byte region
read_r1_70000|-|11|heap-buffer-overflow|0 bytes to the right of 70000-byte region
read_r1_600000|-|11|heap-buffer-overflow|0 bytes to the right of 600000-byte region
read_r1_3m|-|11|heap-buffer-overflow|0 bytes to the right of 3000001-byte region
read_r100_32|-|11|heap-buffer-overflow|99 bytes to the right of 32-byte region
read_r4096_48|-|11|heap-buffer-overflow|4095 bytes to the right of 48-byte region
write_r1_1|-|11|heap-buffer-overflow|WRITE of size 1 .* 0 bytes to the right of 1-byte region
write_r1_10|-|11|heap-buffer-overflow|WRITE of size 1 .* 0 bytes to the right of 10-byte region
write_r1_16|align=16|11|heap-buffer-overflow|WRITE of size 1 .* right of 16-byte region
write_r1_10|align=16|6|heap-buffer-overflow|WRITE .* right of 10-byte .* written earlier
write_r1_10|place=left|6|heap-buffer-overflow|WRITE .* right of 10-byte .* written earlier
write_r1_1000|-|11|heap-buffer-overflow|0 bytes to the right of 1000-byte region
write_r1_4096|place=left|11|heap-buffer-overflow|0 bytes to the right of 4096-byte region
write_r1_70000|-|11|heap-buffer-overflow|0 bytes to the right of 70000-byte region
write_r1_3m|-|11|heap-buffer-overflow|0 bytes to the right of 3000001-byte region
write_l1_10|-|6|heap-buffer-overflow|WRITE .* 1 bytes to the left of 10-byte .* written earlier
write_l1_16|-|6|heap-buffer-overflow|1 bytes to the left of 16-byte .* written earlier
write_l1_16|place=left|11|heap-buffer-overflow|WRITE of size 1 .* 1 bytes to the left of 16-byte
write_l4_100|-|6|heap-buffer-overflow|4 bytes to the left of 100-byte .* written earlier
write_l32_100|-|6|heap-buffer-overflow|32 bytes to the left of 100-byte .* written earlier
write_l1_4096|-|11|heap-buffer-overflow|WRITE of size 1 .* 1 bytes to the left of 4096-byte
write_l1_70000|place=left|11|heap-buffer-overflow|1 bytes to the left of 70000-byte region
read_zero_bytes|-|11|heap-buffer-overflow|0 bytes to the right of 0-byte region
read_word_across|-|11|heap-buffer-overflow|READ of size 8 .* right of 16-byte region
write_loop|-|11|heap-buffer-overflow|0 bytes to the right of 37-byte region
memcpy_out|-|11|heap-buffer-overflow|WRITE .*/libc.so.*/bugs\+0x.* right of 40-byte region
strcpy_out|-|11|heap-buffer-overflow|WRITE .*/libc.so.*/bugs\+0x.* right of 8-byte region
strlen_out|-|11|heap-buffer-overflow|READ .*/libc.so.*/bugs\+0x.* right of 9-byte region
calloc_out|-|11|heap-buffer-overflow|READ of size 4 .* right of 28-byte region
realloc_grown_out|-|11|heap-buffer-overflow|right of 33-byte region
realloc_shrunk_out|-|11|heap-buffer-overflow|right of 50-byte region
aligned_write_out|-|11|heap-buffer-overflow|right of 64-byte region
aligned_slack|-|6|heap-buffer-overflow|WRITE .* 0 bytes to the right of 100-byte .* written earlier
page_aligned_out|-|11|heap-buffer-overflow|right of 8192-byte region
uaf_read_10|-|11|heap-use-after-free|READ of size 1 .* 5 bytes inside of 10-byte .*freed by thread T0
uaf_read_4096|-|11|heap-use-after-free|2048 bytes inside of 4096-byte .*previously allocated by
uaf_read_70000|-|11|heap-use-after-free|35000 bytes inside of 70000-byte .*freed by thread T0 here
uaf_read_3m|-|11|heap-use-after-free|1500000 bytes inside of 3000000-byte .*freed by thread T0
uaf_write|-|11|heap-use-after-free|WRITE of size 1 .* inside of 24-byte .*freed by thread T0 here
uaf_late|-|11|heap-use-after-free|inside of 40-byte .*freed by thread T0 here
uaf_realloc|-|11|heap-use-after-free|inside of 64-byte .*freed by thread T0 here
uaf_list|-|11|heap-use-after-free|READ of size 8 .* inside of 8-byte .*freed by thread T0 here
double_free|-|6|double-free|attempting double-free on 0x.* in thread T0:.* freed by .* previously
double_free_large|-|6|double-free|attempting double-free .*3000000-byte .*freed by thread T0 here
double_free_late|-|6|double-free|attempting double-free .*24-byte .*freed by thread T0 here
double_free_late|revoke=0|6|double-free|attempting double-free .*24-byte .*freed by thread T0 here
free_interior|-|6|bad-free|attempting free on address which was not malloc.*16 bytes inside of 64-byte
free_before|-|6|bad-free|16 bytes to the left of 64-byte region
free_stack|-|6|bad-free|attempting free on address which was not malloc.*wild pointer
free_global|-|6|bad-free|wild pointer
free_wild|-|6|bad-free|wild pointer
realloc_freed|-|6|double-free|attempting double-free .*24-byte
realloc_interior|-|6|bad-free|8 bytes inside of 24-byte region
usable_freed|-|6|bad-malloc_usable_size|pointer which is not owned.*freed by thread T0 here
sized_free|-|6|new-delete-type-mismatch|allocated type:   24 bytes; .* deallocated type: 32 bytes
calloc_overflow|-|6|calloc-overflow|calloc parameters overflow
null_read|-|11|SEGV|unknown address 0x0*8 .*caused by a READ .*points to the zero page
null_write|-|11|SEGV|unknown address 0x0*8 .*caused by a WRITE .*points to the zero page
wild_read|-|11|SEGV|high value address
stack_exhausted|-|11|stack-overflow|stack-overflow on address
uaf_with_handler|-|11|heap-use-after-free|inside of 10-byte .*freed by thread T0 here
write_l1_never_freed|-|6|heap-buffer-overflow|1 bytes to the left of 100-byte .* found at exit
waf_resident_exit|revoke=0|6|heap-use-after-free|WRITE .* 50 bytes inside of 100-byte .* at exit
waf_resident_reuse|revoke=0|6|heap-use-after-free|99 bytes inside of 100-byte .* written earlier
leak|leaks=abort|6|leak|LeakSanitizer: detected memory leaks.*leak of [0-9]* byte.s. in [0-9]* object
END
}

mismatches() {
    cat <<'END'
new_free|-|6|alloc-dealloc-mismatch|.operator new vs free.
malloc_delete|-|6|alloc-dealloc-mismatch|.malloc vs operator delete.
new_delete_array|-|6|alloc-dealloc-mismatch|.operator new vs operator delete \[\].
new_array_delete|-|6|alloc-dealloc-mismatch|.operator new \[\] vs operator delete.
new_array_free|-|6|alloc-dealloc-mismatch|.operator new \[\] vs free.
new_realloc|-|6|alloc-dealloc-mismatch|.operator new vs realloc.
sized_delete|-|6|new-delete-type-mismatch|allocated type:   24 .* deallocated type: 32 bytes
sized_delete_array|-|6|new-delete-type-mismatch|allocated type:   24 .* deallocated type: 8 bytes
double_delete|-|6|double-free|attempting double-free
new_out|-|11|heap-buffer-overflow|right of 25-byte region
aligned_new_out|-|11|heap-buffer-overflow|right of 64-byte region
new_handled|max_total=1m|6|alloc-dealloc-mismatch|.operator new vs free.
END
}

# The whole report on one line. Its parts must come in the order triage tools expect.
is_report() { # BUG EXTRA
    local flat
    flat=$(tr '\n' ' ' <"$err")
    if [ "$1" = leak ]; then
        [[ $flat =~ $2.*"SUMMARY: AddressSanitizer: "[0-9]+" byte(s) leaked in" ]]
        return
    fi
    [[ $flat =~ ==[0-9]+==ERROR:\ AddressSanitizer:\ .*\#0\ 0x[0-9a-f]+\ \(/.*SUMMARY:\ AddressSanitizer:\ $1.*ABORTING ]] ||
        { [[ $2 = *"at exit" ]] && [[ $flat =~ SUMMARY:\ AddressSanitizer:\ $1 ]]; } || return
    [[ $flat =~ $2 ]]
}

try() { # PROGRAM CASE OPTIONS SIGNAL BUG EXTRA
    local options=$3 name="$2 ($3)"
    [ "$options" != - ] || options= name=$2
    under "$lib" "$options" "$programs/$1" "$2" wrong
    if [ "$status" != $((128 + $4)) ]; then
        not_ok "wrong $name" "ended with $status instead of signal $4: $(head -c 300 "$err")"
    elif ! is_report "$5" "$6"; then
        not_ok "wrong $name" "no report of $5 with '$6': $(tr '\n' ' ' <"$err" | head -c 1500)"
    else
        ok "wrong $name"
    fi
    under "$lib" "$options" "$programs/$1" "$2" right
    if [ "$status" != 0 ] || [ -s "$err" ] ||
        { [ "$2" != waf_resident_reuse ] && [ "$(cat "$out")" != survived ]; }; then
        not_ok "right $name" "status $status: $(head -c 300 "$err")"
    else
        ok "right $name"
    fi
}

seen=0
while IFS='|' read -r name options signal bug extra; do
    try bugs "$name" "$options" "$signal" "$bug" "$extra"
    seen=$((seen + 1))
done < <(cases)
while IFS='|' read -r name options signal bug extra; do
    try mismatch "$name" "$options" "$signal" "$bug" "$extra"
    seen=$((seen + 1))
done < <(mismatches)
check "every case of bugs.c is in the table" "$(cases | cut -d '|' -f 1 | sort -u | wc -l) are" \
    test "$(cases | cut -d '|' -f 1 | sort -u)" = "$("$programs/bugs" --list | sort)"
check "there were cases" "only $seen" test "$seen" -gt 70
under "$lib" "" "$programs/mismatch" new_refused right
check "a refused operator new throws" "status $status: $(cat "$out" "$err")" test "$status" = 0
# Tools read the access line and the region by these patterns.
under "$lib" "" "$programs/bugs" uaf_write wrong
check "frames name module and offset that addr2line resolves" "$(cat "$err")" \
    grep -q 'bugs.c:' <(sed -n 's/^    #0 0x[0-9a-f]* (\(.*\)+\(0x[0-9a-f]*\))$/\1 \2/p' "$err" |
        while read -r module offset; do addr2line -e "$module" "$offset"; done)
finish
