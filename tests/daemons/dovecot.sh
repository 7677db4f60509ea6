#!/usr/bin/env bash
# Dovecot: four IMAP clients at once, each login a process in a chroot, each mailbox one of its user; messages stored,
# fetched, searched, expunged; a reload.
. "$(dirname "$0")/lib.sh"

port=$(free_port)
messages=$((short ? 10 : 80))

configure() {
    mkdir -p "$folder/run" "$folder/state" "$folder/mail"
    chown nobody "$folder/mail"
    cat >"$folder/dovecot.conf" <<END
base_dir = $folder/run
state_dir = $folder/state
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
log_path = $folder/dovecot.log
default_internal_user = nobody
default_internal_group = $(id -gn nobody)
default_login_user = nobody
mail_location = maildir:$folder/mail/%u
first_valid_uid = 1
import_environment = LD_PRELOAD FIRN_OPTIONS
service imap-login {
  inet_listener imap {
    port = $port
  }
  inet_listener imaps {
    port = 0
  }
}
service stats {
  client_limit = 1000
}
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=nobody gid=$(id -gn nobody) home=$folder/mail/%u
}
END
    cat >"$folder/client.py" <<'END'
import hashlib, imaplib, sys, threading
port, count = int(sys.argv[1]), int(sys.argv[2])
said = {}
def work(name):
    try:
        c = imaplib.IMAP4("127.0.0.1", port, timeout=60)
        c.login(name, "secret")
        c.select()
        for i in range(count):
            body = "".join(f"line {k} of {i}\r\n" for k in range(i * i % 700))
            c.append("INBOX", None, None, f"Subject: message {i}\r\nFrom: {name}@x\r\n\r\n{body}".encode())
        c.noop()
        found = c.search(None, "BODY", '"line 5 of 3"')[1]
        digest = hashlib.sha256()
        everything = c.fetch("1:*", "(BODY[])")[1]
        for part in everything:
            digest.update(part[1] if isinstance(part, tuple) else b"")
        c.store("1:3", "+FLAGS", "\\Deleted")
        left = len(c.expunge()[1])
        c.logout()
        said[name] = (found, digest.hexdigest(), left)
    except Exception as error:
        said[name] = repr(error)
threads = [threading.Thread(target=work, args=(f"user{i}",)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(sorted(said.items()))
END
}

drive() {
    configure
    start "$port" dovecot -F -c "$folder/dovecot.conf" || return
    run python3 "$folder/client.py" "$port" "$messages" >>"$out" 2>&1
    sleep "$idle"
    kill -HUP "$pid"
    sleep 1
    await answers "$port"
    run python3 "$folder/client.py" "$port" "$messages" >>"$out" 2>&1
    [ "$how" = plain ] || has_firn "$pid"
    grep -acE 'killed with signal|Panic' "$folder/dovecot.log" >>"$out"
    stop "$pid"
}

need_root dovecot && need dovecot dovecot python3 && compare dovecot drive
finish
