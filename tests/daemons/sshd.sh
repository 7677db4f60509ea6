#!/usr/bin/env bash
# sshd with privilege separation and its seccomp sandbox: logins, output of commands, a file copied both
# ways. Each login is a sandboxed child.
. "$(dirname "$0")/lib.sh"

logins=$((short ? 12 : 50))
megabytes=$((short ? 10 : 100))
port=$(free_port)

configure() {
    mkdir -p /run/sshd "$folder/files"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/host" </dev/null
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key" </dev/null
    cp "$folder/key.pub" "$folder/keys"
    cat >"$folder/config" <<END
Port $port
ListenAddress 127.0.0.1
HostKey $folder/host
AuthorizedKeysFile $folder/keys
PidFile $folder/pid
PermitRootLogin yes
StrictModes no
UsePAM no
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
END
    options=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR
        -o IdentitiesOnly=yes -o BatchMode=yes -i "$folder/key")
}

log_in() { # NUMBER
    run ssh "${options[@]}" -p "$port" 127.0.0.1 "echo login $1; seq $1 $(($1 * 100)) | cksum" \
        </dev/null >>"$out" 2>>"$folder/ssh.log" || echo "login $1: status $?" >>"$out"
}

drive() {
    configure
    start "$port" /usr/sbin/sshd -D -e -f "$folder/config" || return
    local i
    for ((i = 1; i <= logins; i++)); do
        log_in "$i"
    done
    # At the same time.
    for ((i = 1; i <= 6; i++)); do
        run ssh "${options[@]}" -p "$port" 127.0.0.1 "seq $i 9999 | cksum" </dev/null \
            >"$folder/together.$i" 2>>"$folder/ssh.log" &
        together[i]=$!
    done
    wait "${together[@]}"
    cat "$folder"/together.* >>"$out"
    head -c "${megabytes}M" /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null >"$folder/data"
    run scp -q "${options[@]}" -P "$port" "$folder/data" "127.0.0.1:$folder/files/data" \
        2>>"$folder/ssh.log" || echo "scp to: $?" >>"$out"
    run scp -q "${options[@]}" -P "$port" "127.0.0.1:$folder/files/data" "$folder/back" \
        2>>"$folder/ssh.log" || echo "scp from: $?" >>"$out"
    cksum <"$folder/back" >>"$out"
    kill -HUP "$pid" # starts anew
    sleep 0.5
    await answers "$port"
    sleep "$idle"
    log_in 7
    grep -c 'Accepted publickey' "$work/$how.log" >>"$out"
    grep -ciE 'violation|signal|fatal' "$work/$how.log" >>"$out"
    stop "$pid"
}

need_root sshd && need sshd sshd ssh scp && compare sshd drive
finish
