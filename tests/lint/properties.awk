# The property table of SECURITY.md:
#   | `ID` | claim | odds | level | `file`, ... | `test`, ... |
# Complains about a row that is not complete; prints "row ID LEVEL", "file ID PATH", "test ID PATH" for
# each row, for tests/lint/run to compare with the code.
BEGIN { FS = " *[|] *" }

function complain(what) { print "complaint SECURITY.md: " id ": " what }

function paths(word, text,   n, i, part, count) {
    n = split(text, part, "`")
    for (i = 2; i <= n; i += 2) {
        print word, id, part[i]
        count++
    }
    if (!count) complain("names no " word)
}

/^\| `P-/ {
    id = $2
    gsub("`", "", id)
    if (NF != 8) complain("has " NF - 2 " cells, not 6")
    if (id !~ /^P-[A-Z]+(-[A-Z]+)*$/) complain("is no id")
    if (seen[id]++) complain("stands there twice")
    if ($3 == "") complain("claims nothing")
    if ($4 !~ /deterministic|2\^-[0-9]+|1 in /) complain("odds are neither deterministic, 2^-N nor 1 in N")
    if ($5 !~ /^[0-3]$/) complain("level is not 0, 1, 2 or 3")
    print "row", id, $5
    paths("file", $6)
    paths("test", $7)
}
