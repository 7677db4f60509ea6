// The program that `make fuzz-demo` fuzzes: a reader of settings, one "name = value" a line, a value in
// quotes may contain the escapes \n \t \" and \\. It has one bug, planted: see unescape.
//
//   demo_target < FILE       prints what it read
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_MOST = 4096 };

struct setting {
    struct setting *next;
    char *name;
    char *value;
    size_t value_bytes;
};

static char *copy_bytes(const char *from, size_t n) {
    char *p = malloc(n);
    if (p != NULL) {
        memcpy(p, from, n);
    }
    return p;
}

static char escaped(char c) {
    return c == 'n' ? '\n' : c == 't' ? '\t' : c;
}

// Replaces escapes in place; returns the bytes left. The planted bug: a backslash may be the last byte
// of the text, and then the byte behind it, which is not ours, is read. Under glibc nothing happens.
static size_t unescape(char *text, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '\\') {
            i++;
            c = escaped(text[i]);
        }
        text[out++] = c;
    }
    return out;
}

static const char *skip_blanks(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    return at;
}

// The text between quotes, or everything up to the end of the line.
static int read_value(const char *at, const char *end, struct setting *s) {
    at = skip_blanks(at, end);
    if (at < end && *at == '"') {
        const char *closing = memchr(at + 1, '"', (size_t)(end - at - 1));
        if (closing == NULL) {
            return 0;
        }
        s->value_bytes = (size_t)(closing - at - 1);
        s->value = copy_bytes(at + 1, s->value_bytes);
        if (s->value != NULL) {
            s->value_bytes = unescape(s->value, s->value_bytes);
        }
    } else {
        s->value_bytes = (size_t)(end - at);
        s->value = copy_bytes(at, s->value_bytes);
    }
    return s->value != NULL;
}

static void drop(struct setting *s) {
    free(s->name);
    free(s->value);
    free(s);
}

// NULL for a line that is not a setting.
static struct setting *read_line(const char *line, const char *end) {
    const char *equals = memchr(line, '=', (size_t)(end - line));
    struct setting *s = equals != NULL && equals > line ? calloc(1, sizeof(*s)) : NULL;
    if (s == NULL) {
        return NULL;
    }
    size_t n = (size_t)(equals - line);
    while (n > 1 && line[n - 1] == ' ') {
        n--;
    }
    s->name = malloc(n + 1);
    if (s->name != NULL) {
        memcpy(s->name, line, n);
        s->name[n] = '\0';
    }
    if (s->name == NULL || !read_value(equals + 1, end, s)) {
        drop(s);
        return NULL;
    }
    return s;
}

int main(void) {
    static char input[INPUT_MOST];
    struct setting *first = NULL;
    const char *at = input, *end = input + fread(input, 1, sizeof(input), stdin);
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline != NULL ? newline : end;
        struct setting *s = read_line(at, stop);
        if (s != NULL) {
            s->next = first;
            first = s;
        }
        at = newline != NULL ? newline + 1 : end;
    }
    for (struct setting *s = first, *next; s != NULL; s = next) {
        next = s->next;
        printf("%s: %zu bytes\n", s->name, s->value_bytes);
        drop(s);
    }
    return 0;
}
