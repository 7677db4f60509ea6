# Who may include whom. Reads C files; prints each include that the table does not allow, and fails
# when it saw no include at all: a check that found nothing to check has not passed.
BEGIN {
    # folder: the folders it may include from, besides itself and include/
    allow("src/base", "")
    allow("src/os", "src/base")
    allow("src/meta", "src/base src/os")
    allow("src/span", "src/base src/os src/meta")
    allow("src/slab", "src/base src/os src/meta src/span")
    allow("hardening", "src/base src/os src/meta src/span src/slab")
    lower = "src/base src/os src/meta src/span src/slab hardening"
    allow("src/cache", lower)
    allow("mesh", lower)
    allow("src/cold", lower)
    allow("src/heap", lower " src/cache mesh src/cold")
    allow("src/front", lower " src/cache mesh src/cold src/heap")
    allow("src/preload", lower " src/cache mesh src/cold src/heap src/front")
    # Built apart from the rest: an allocator of its own on the two lowest layers.
    allow("src/fuzzbuild", "src/base src/os")
    allow("tools", "src/base src/os src/front") # the launcher reads firn.conf as the libraries do
    # The only files that may see these headers.
    only["zstd.h"] = "src/cold/pack.c"
    only["sodium.h"] = "src/cold/seal.c"
}

function allow(from, to,    list, n, i) {
    known[from] = 1
    edge[from, from] = 1
    edge[from, "include/firn"] = 1
    n = split(to, list, " ")
    for (i = 1; i <= n; i++) edge[from, list[i]] = 1
}

function folder(path) {
    if (!sub(/\/[^\/]*$/, "", path)) return "."
    return path
}

function complain(text) {
    print FILENAME ":" FNR ": " text
    bad++
}

/^[ \t]*#[ \t]*include[ \t]*</ {
    seen++
    name = $0
    sub(/^[^<]*</, "", name)
    sub(/>.*/, "", name)
    if (name in only && FILENAME != only[name]) complain("<" name "> belongs to " only[name])
}

/^[ \t]*#[ \t]*include[ \t]*"/ {
    seen++
    target = $0
    sub(/^[^"]*"/, "", target)
    sub(/".*/, "", target)
    from = folder(FILENAME)
    to = folder(target)
    if (to == "firn") to = "include/firn"
    if (!(from in known)) complain("no rule for files in " from)
    else if (to == ".") complain("\"" target "\" is not spelled from the repository root")
    else if (!((from, to) in edge)) complain(from " may not include " to)
}

END {
    if (!seen) {
        print "no include line seen"
        bad++
    }
    print seen + 0 " includes"
    exit bad != 0
}
