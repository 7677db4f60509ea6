#!/usr/bin/env bash
# cron: jobs of a user's crontab, at the next full minute. In a mount namespace of its own, with an empty
# /var/spool/cron and an empty /etc/crontab.
. "$(dirname "$0")/lib.sh"

spool=/var/spool/cron/crontabs

drive() {
    mkdir -p "$folder/spool/crontabs" "$folder/run" "$folder/etc"
    chown nobody "$folder"
    printf '* * * * * seq 1 20000 | sort -n | cksum >>%s/ran.out; grep -c libfirn /proc/self/maps >%s/mapped\n' \
        "$folder" "$folder" >"$folder/spool/crontabs/nobody"
    chmod 600 "$folder/spool/crontabs/nobody"
    chown nobody:crontab "$folder/spool/crontabs/nobody"
    : >"$folder/etc/crontab"
    cat >"$folder/inside" <<END
mount --bind $folder/spool /var/spool/cron && mount --bind $folder/etc/crontab /etc/crontab &&
    mount -t tmpfs none /etc/cron.d && mount -t tmpfs none /run && exec "\$@"
END
    start 0 unshare -m sh "$folder/inside" cron -f
    for ((i = 0; i < 1300; i++)); do
        [ ! -s "$folder/mapped" ] || break
        sleep 0.1
    done
    [ "$how" = plain ] || has_firn "$pid"
    cat "$folder/ran.out" >>"$out" 2>&1
    # cron gives its jobs a new environment: they run without the library, with Firn or not.
    echo "jobs with the library: $(cat "$folder/mapped")" >>"$out"
    stop "$pid"
}

if need_root cron && need cron cron unshare; then
    if [ -d "$spool" ] && unshare -m true 2>/dev/null; then
        compare cron drive
    else
        skip cron "no mount namespace to be had"
    fi
fi
finish
