# Checks of single programs, used with and without limits; sourced, never run.
# shellcheck shell=bash disable=SC2016,SC2154
# Each takes a label that goes before the name, and leaves nothing behind.

check_perl() { # LABEL
    need "${1}perl" perl || return
    same "${1}perl" perl "$here/programs/words.pl" $((few ? 20000 : 100000))
}

check_lua() { # LABEL
    need "${1}lua" lua5.4 || return
    same "${1}lua" lua5.4 "$here/programs/tables.lua" $((few ? 20000 : 100000))
}

check_node() { # LABEL
    need "${1}node" node || return
    same "${1}node" node "$here/programs/objects.js" $((few ? 5000 : 30000))
}

check_python() { # LABEL
    need "${1}python3" python3 || return
    same "${1}python3" /usr/bin/python3 "$here/programs/objects.py" $((few ? 3000 : 20000))
}

check_bash() { # LABEL
    same "${1}bash-forks" bash -c '
        sum=0
        for ((i = 0; i < $1; i++)); do
            word=$(printf "%d-%s" "$i" "${sum:0:6}")
            sum=$((sum + ${#word}))
            if ((i % 10 == 0)); then
                (exit $((i % 7))) &
                wait $! || sum=$((sum + $?))
            fi
        done
        declare -A table
        for ((i = 0; i < 5000; i++)); do
            table[key$i]=${sum}x$i
        done
        echo "$sum ${#table[@]} ${table[key4999]}"' bash $((few ? 200 : 1000))
}

check_sort() { # LABEL
    # Threads: sort reads, splits and merges with eight of them.
    seq 1 $((few ? 200000 : 1000000)) | awk '{ print ($1 * 7919) % 1000003, "line", $1 }' \
        >"$work/input"
    same "${1}sort-8-threads" sort --parallel=8 -S 64M -k1,1n -k3,3r
}

check_sqlite() { # LABEL
    need "${1}sqlite3" sqlite3 || return
    local database=$work/check.db name="${1}sqlite3"
    {
        echo 'PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF;'
        echo 'CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, note BLOB);'
        echo "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <
            $((few ? 20000 : 100000)))
            INSERT INTO item SELECT i, printf('name-%06d', i * 7919 % 100003), i * 0.25,
            zeroblob(i % 200) FROM n;"
        echo 'CREATE INDEX by_name ON item(name); CREATE INDEX by_price ON item(price, name);'
        echo 'DELETE FROM item WHERE id % 3 = 0; UPDATE item SET note = name WHERE id % 5 = 0;'
        echo 'VACUUM; PRAGMA integrity_check;'
        echo 'SELECT count(*), sum(price), min(name), max(name) FROM item;'
        echo 'SELECT substr(name, 1, 7) g, count(*), avg(price), group_concat(length(note))
            FROM item GROUP BY g ORDER BY g LIMIT 50;'
        echo 'SELECT a.id, b.id FROM item a JOIN item b ON a.name = b.name AND a.id < b.id
            ORDER BY 1 LIMIT 20;'
    } >"$work/script.sql"
    # The database file is new for each run.
    same "$name" bash -c 'rm -f "$1"; sqlite3 "$1" <"$2"' bash "$database" "$work/script.sql"
    grep -qx ok "$work/firn.out" || not_ok "$name-integrity" "integrity_check did not say ok"
    rm -f "$database"
}

check_git() { # LABEL
    need "${1}git" git || return
    # Fixed names and dates: the same repository has the same hashes.
    cat >"$work/git.sh" <<'END'
set -e
export HOME=$1/home GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C
export GIT_COMMITTER_EMAIL=c@example.org
rm -rf "$1/home" "$1/repo" "$1/clone"
mkdir -p "$HOME" "$1/repo"
cd "$1/repo"
git init -q -b main .
for i in $(seq 1 "$2"); do
    seq "$i" $((i + 400)) >"file$((i % 23))"
    awk -v n="$i" 'BEGIN { for (i = 0; i < 200; i++) print "text", i * n % 97, n }' >"text$i"
    git add -A
    export GIT_AUTHOR_DATE="$((1700000000 + i * 60)) +0000"
    export GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE
    git commit -q -m "commit $i"
    if [ $((i % 10)) = 0 ]; then
        git branch "side$i" HEAD~3
    fi
done
git gc -q --prune=now
git fsck --full --strict 2>&1 | grep -v '^Checking' || true
git clone -q --no-local "file://$1/repo" "$1/clone" 2>&1
cd "$1/clone"
git log --stat --format='%H %s' | sha256sum
git rev-list --objects --all | sort | sha256sum
git diff --stat HEAD~5 HEAD | tail -n 1
git log -S 'text 12' --oneline | wc -l
git blame file3 | sha256sum
git gc -q --aggressive --prune=now
git fsck --full
git status --short | wc -l
END
    same "${1}git" bash "$work/git.sh" "$work" $((few ? 15 : 60))
    rm -rf "${work:?}/home" "$work/repo" "$work/clone"
}

# Object files byte for byte as without Firn. Compilers allocate without end and hash addresses.
check_compiler() { # LABEL COMPILER FLAGS-AND-SOURCE...
    local name="${1}$2" compiler=$2
    need "$name" "$compiler" || return
    shift 2
    (cd "$root" && plain "$compiler" -O2 -c "$@" -o "$work/plain.o" 2>"$work/plain.err") || {
        skip "$name" "cannot compile without Firn: $(head -n 1 "$work/plain.err")"
        return
    }
    local status
    (cd "$root" && firn "$compiler" -O2 -c "$@" -o "$work/firn.o" 2>"$work/firn.err")
    status=$?
    if [ "$status" != 0 ] || grep -q '^firn:' "$work/firn.err"; then
        not_ok "$name" "$(complaint "$status" "$work/firn.err")"
    elif ! cmp -s "$work/plain.o" "$work/firn.o"; then
        not_ok "$name" "another object file"
    else
        ok "$name"
    fi
    rm -f "$work/plain.o" "$work/firn.o"
}

check_gcc() { # LABEL
    check_compiler "$1" gcc -std=c17 -D_GNU_SOURCE -I. -g tests/preload/programs/compile.c
}

check_gxx() { # LABEL
    check_compiler "$1" g++ -std=c++17 -g tests/preload/programs/compile.cc
}
