#!/usr/bin/env bash
# A whole Debian with the library in /etc/ld.so.preload: debootstrap's second stage, which configures every
# package, runs in a chroot with it from its first process on; then accounts, a set-user-ID program, a package more.
# Every file of the system must be what it is without Firn. Needs Debian's mirror.
. "$(dirname "$0")/lib.sh"

mirror=http://deb.debian.org/debian
first=$work/first # the first stage, which is downloaded and unpacked, for both

unpack_first() {
    [ -d "$first" ] || timeout -k 5 900 debootstrap --foreign --variant=minbase bookworm "$first" "$mirror" \
        >"$work/first.log" 2>&1
}

# In a mount namespace of its own.
inside() { # COMMAND...
    # shellcheck disable=SC2016
    unshare -m sh -c 'root=$1; shift; mount --make-rprivate / && mount -t proc proc "$root/proc" && exec chroot "$root" "$@"' \
        sh "$folder/root" "$@"
}

# What differs from one installation to the next, with Firn or not, is not compared.
list_files() {
    (cd "$folder/root" && find . -xdev -type f ! -path './proc/*' ! -path './sys/*' ! -path './var/log/*' \
        ! -path './var/cache/*' ! -name ld.so.cache ! -name ld.so.preload ! -name libfirn.so \
        ! -name 'shadow*' ! -name '*-old' -print0 | LC_ALL=C sort -z | xargs -0 md5sum)
}

use_system() {
    inside useradd -m frost
    echo frost:snow | inside chpasswd && inside passwd -S frost | cut -d ' ' -f 1,2
    inside su - frost -c 'id; passwd -S frost | cut -d " " -f 1,2' # which is set-user-ID
    # shellcheck disable=SC2016
    inside su - frost -c 'perl -e "my %h; \$h{\$_ % 999} .= \$_ for 1 .. 100000; print length join q(), values %h, qq(\n)"'
    cp /etc/resolv.conf "$folder/root/etc/resolv.conf"
    inside apt-get -qq update && inside apt-get -qq -y --no-install-recommends install bc 2>&1 | grep -a '^Setting up'
    inside sh -c 'echo "2 ^ 4000" | bc | md5sum'
    inside dpkg --verify && inside dpkg -l | md5sum
}

drive() {
    seconds=600
    unpack_first || return
    mkdir "$folder/root" && cp -a "$first/." "$folder/root" || return
    if [ "$how" = firn ]; then
        cp "$FIRN_LIB" "$folder/root/usr/lib/libfirn.so"
        echo /usr/lib/libfirn.so >"$folder/root/etc/ld.so.preload"
    fi
    inside /debootstrap/debootstrap --second-stage >"$work/$how.log" 2>&1 || return
    [ "$how" = plain ] || inside grep -q /usr/lib/libfirn.so /proc/self/maps ||
        echo "grep runs without the library" >>"$work/$how.wrong"
    use_system >>"$out" 2>&1
    list_files >>"$out"
}

if need_root system && need debootstrap debootstrap unshare; then
    if ! unshare -m true 2>/dev/null; then
        skip system "no mount namespace to be had"
    elif ! unpack_first; then
        skip system "no first stage: $(tail -n 1 "$work/first.log")"
    else
        compare system drive
    fi
fi
finish
