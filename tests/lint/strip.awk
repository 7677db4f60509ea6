# C without comments, string and character contents; lines keep their numbers. Enough of a lexer
# for house-style sources: no trigraphs, no line continuation inside a literal.
{
    out = ""
    n = length($0)
    for (i = 1; i <= n; i++) {
        c = substr($0, i, 1)
        two = substr($0, i, 2)
        if (in_comment) {
            if (two == "*/") { in_comment = 0; i++ }
        } else if (two == "/*") { in_comment = 1; i++
        } else if (two == "//") break
        else if (c == "\"" || c == "'") {
            for (i++; i <= n && substr($0, i, 1) != c; i++) if (substr($0, i, 1) == "\\") i++
            out = out c c
        } else out = out c
    }
    print out
}
