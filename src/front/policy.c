// P-POLICY. Runs during the first allocation of the process, perhaps inside ld.so: no stdio, no allocation.
// Everything is streamed through buffers of a few hundred bytes.
#include "src/front/policy.h"

#include "src/base/text.h"
#include "src/os/sys.h"
#include "src/os/trusted.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

enum { NAME_BYTES = 256, ORIGIN_BYTES = 320 };

struct reading {
    const struct policy_source *source;
    policy_apply_fn *apply;
    void *context;
    const char *program; // NULL: not known
    const char *file;
    unsigned line_number;
    unsigned complaints;
    bool is_loss_said; // that the program is not known
};

// Written by one thread: heap/life decides under its lock.
static char program_path[PATH_MAX];

static void say(struct reading *r, const char *before, const char *what, const char *quoted) {
    char buffer[ORIGIN_BYTES + 160];
    struct text line = text_on(buffer, sizeof buffer - 1);
    if (++r->complaints > POLICY_COMPLAINTS_MOST) {
        return;
    }
    text_str(&line, "firn: ");
    text_str(&line, r->file);
    if (r->line_number != 0) {
        text_char(&line, ':');
        text_dec(&line, r->line_number);
    }
    text_str(&line, ": ");
    text_str(&line, before);
    if (quoted != NULL) {
        text_quote(&line, quoted, strlen(quoted));
    }
    text_str(&line, what);
    text_str(&line, r->complaints == POLICY_COMPLAINTS_MOST ? "; nothing more is said" : "");
    buffer[line.length++] = '\n';
    sys_write(2, buffer, line.length);
}

// ---- patterns ---------------------------------------------------------------------------------

// Where a star began: what it has taken may still grow. A later star of the same kind makes an earlier one final:
// what stood between them matched as early as it could. A `*` cannot pass a slash, so a `**` before it
// may have to grow instead; never the other way round.
struct star {
    const char *pattern; // after the star; NULL: none
    const char *path;    // the end of what it has taken
};

static bool grow(struct star *star, bool past_slash, const char **pattern, const char **path) {
    if (star->pattern == NULL || *star->path == '\0' || (*star->path == '/' && !past_slash)) {
        return false;
    }
    star->path++;
    *pattern = star->pattern;
    *path = star->path;
    return true;
}

bool policy_matches(const char *pattern, const char *path) {
    struct star one = {NULL, NULL};
    struct star any = {NULL, NULL};
    while (*path != '\0' || *pattern != '\0') {
        if (pattern[0] == '*' && pattern[1] == '*') {
            pattern += 2;
            any = (struct star){pattern, path};
            one.pattern = NULL;
        } else if (*pattern == '*') {
            pattern++;
            one = (struct star){pattern, path};
        } else if (*path != '\0' && (*pattern == *path || (*pattern == '?' && *path != '/'))) {
            pattern++;
            path++;
        } else if (!grow(&one, false, &pattern, &path)) {
            one.pattern = NULL;
            if (!grow(&any, true, &pattern, &path)) {
                return false;
            }
        }
    }
    return true;
}

// ---- lines ------------------------------------------------------------------------------------

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

// Words separated by single colons, as in FIRN_OPTIONS, up to a word that begins with '#'.
static void join_words(char *text) {
    char *out = text;
    for (char *at = text; *at != '\0' && *at != '#';) {
        if (out != text) {
            *out++ = ':';
        }
        while (*at != '\0' && !is_blank(*at)) {
            *out++ = *at++;
        }
        while (is_blank(*at)) {
            at++;
        }
    }
    *out = '\0';
}

static void apply_line(struct reading *r, const char *pattern, const char *options) {
    char buffer[ORIGIN_BYTES];
    struct text origin = text_on(buffer, sizeof buffer);
    const bool is_for_all = strcmp(pattern, "**") == 0;
    if (r->program == NULL && !is_for_all) {
        if (!r->is_loss_said) {
            r->is_loss_said = true;
            say(r, "ignored, /proc/self/exe does not say which program this is", "", NULL);
        }
        return;
    }
    if (!is_for_all && !policy_matches(pattern, r->program)) {
        return;
    }
    text_str(&origin, r->file);
    text_char(&origin, ':');
    text_dec(&origin, r->line_number);
    r->complaints += r->apply(options, buffer, r->context);
}

static void take_line(struct reading *r, char *line) {
    while (is_blank(*line)) {
        line++;
    }
    if (*line == '\0' || *line == '#') {
        return;
    }
    for (const char *at = line; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' && !is_blank(*at)) {
            say(r, "ignored, there is a control character in it", "", NULL);
            return;
        }
    }
    char *end = line;
    while (*end != '\0' && !is_blank(*end)) {
        end++;
    }
    char *options = end;
    while (is_blank(*options)) {
        *options++ = '\0';
    }
    join_words(options);
    if (line[0] != '/' && strncmp(line, "**", 2) != 0) {
        say(r, "ignored, the pattern ", " begins neither with / nor with **", line);
    } else if (*options == '\0') {
        say(r, "ignored, no option after the pattern ", "", line);
    } else {
        apply_line(r, line, options);
    }
}

struct line {
    size_t length; // may be more than fits
    bool has_zero;
    char text[POLICY_LINE_BYTES];
};

static void end_line(struct reading *r, struct line *line) {
    r->line_number++;
    line->text[line->length < sizeof line->text ? line->length : 0] = '\0';
    if (line->length >= sizeof line->text) {
        say(r, "ignored, the line is longer than 511 bytes", "", NULL);
    } else if (line->has_zero) {
        say(r, "ignored, there is a control character in it", "", NULL);
    } else {
        take_line(r, line->text);
    }
    line->length = 0;
    line->has_zero = false;
}

static void take_piece(struct reading *r, struct line *line, const char *piece, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (piece[i] == '\n') {
            end_line(r, line);
            continue;
        }
        line->has_zero |= piece[i] == '\0';
        if (line->length < sizeof line->text) {
            line->text[line->length++] = piece[i];
        }
    }
}

// The file may grow while it is read: no more than what was promised counts.
static void take_file(struct reading *r, int fd) {
    char piece[512];
    struct line line = {.length = 0};
    size_t left = TRUSTED_BYTES;
    r->line_number = 0;
    for (size_t n;
         left > 0 && (n = trusted_read(fd, piece, left < sizeof piece ? left : sizeof piece)) > 0;
         left -= n) {
        take_piece(r, &line, piece, n);
    }
    if (line.length > 0) {
        end_line(r, &line);
    }
    r->line_number = 0;
    trusted_close(fd);
}

// ---- files ------------------------------------------------------------------------------------

static bool is_conf(const char *name) {
    const size_t n = strlen(name);
    return n > 5 && memcmp(name + n - 5, ".conf", 5) == 0;
}

static void take_folder(struct reading *r, int folder) {
    char name[NAME_BYTES] = "", next[NAME_BYTES];
    char path[NAME_BYTES + 32];
    unsigned files = 0;
    while (trusted_next(folder, name, next, sizeof next)) {
        memcpy(name, next, sizeof name);
        if (!is_conf(name)) {
            continue;
        }
        struct text t = text_on(path, sizeof path);
        text_str(&t, r->source->folder);
        text_char(&t, '/');
        text_str(&t, name);
        r->file = path;
        const char *wrong = NULL;
        if (++files > POLICY_FILES_MOST) {
            say(r, "ignored, and what comes after it: there are more than 64 files", "", NULL);
            break;
        }
        int fd = trusted_open(folder, name, false, r->source->owner, &wrong);
        if (fd >= 0) {
            take_file(r, fd);
        } else if (wrong != NULL) {
            say(r, "ignored, ", wrong, NULL);
        }
    }
    r->file = r->source->folder;
    trusted_close(folder);
}

unsigned policy_read_opened(const struct policy_source *source, int fd, const char *wrong,
                            policy_apply_fn *apply, void *context) {
    struct reading r = {.source = source, .apply = apply, .context = context, .file = source->file};
    if (fd < 0) {
        say(&r, "ignored, ", wrong, NULL);
        return r.complaints;
    }
    r.program = source->program;
    if (r.program == NULL && trusted_program(program_path, sizeof program_path)) {
        r.program = program_path;
    }
    take_file(&r, fd);
    r.file = source->folder;
    int folder = trusted_open(TRUSTED_HERE, source->folder, true, source->owner, &wrong);
    if (folder >= 0) {
        take_folder(&r, folder);
    } else if (wrong != NULL) {
        say(&r, "ignored, ", wrong, NULL);
    }
    return r.complaints;
}
