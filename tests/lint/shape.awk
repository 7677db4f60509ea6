# Length of files and functions, and conditionals where they do not belong, in stripped C.
# -v file=NAME -v lines=N -v strict=1: beyond the hard limits is an error, beyond the soft ones a
# remark. House style puts a function's opening brace at the end of its signature and its closing
# brace in column 1.
function remark(text) { print "note: " text }
function complain(text) { print text; bad++ }

BEGIN {
    if (lines > 600) complain(file ": " lines " lines (600 at most)")
    else if (lines > 500) remark(file ": " lines " lines (aim for 500)")
    may_branch = file ~ /^src\/(os|preload|fuzzbuild)\// || file ~ /^src\/base\/(config|compiler)\.h$/ \
        || file !~ /^(src|hardening|mesh)\//
}

/^[ \t]*#[ \t]*(if|ifdef|elif|else)([ \t(]|$)/ {
    if (!may_branch)
        complain(file ":" FNR ": conditional compilation; write if (FIRN_X) instead")
}

/^[A-Za-z_].*\)[^;]*\{$/ || (pending && /\{$/) { start = FNR; pending = 0 }
/^[A-Za-z_][^;={]*\([^;{]*$/ { pending = 1 }
/;$/ { pending = 0 }
/^\}/ && start {
    length_lines = FNR - start + 1
    functions++
    if (length_lines > 80) complain(file ":" start ": a function of " length_lines " lines (80 at most)")
    else if (length_lines > 60) remark(file ":" start ": a function of " length_lines " lines (aim for 25)")
    start = 0
}

END {
    print "functions " functions + 0
    exit strict && bad != 0
}
