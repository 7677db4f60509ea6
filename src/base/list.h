// Circular doubly linked lists with a sentinel, embedded in descriptors. Removal needs no head.
#ifndef FIRN_BASE_LIST_H
#define FIRN_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev; // of a head: first and last; of itself when empty
};

static inline void list_init(struct list *head) {
    head->next = head;
    head->prev = head;
}

static inline bool list_is_empty(const struct list *head) {
    return head->next == head;
}

static inline void list_push_front(struct list *head, struct list *node) {
    node->next = head->next;
    node->prev = head;
    head->next->prev = node;
    head->next = node;
}

static inline void list_push_back(struct list *head, struct list *node) {
    list_push_front(head->prev, node);
}

static inline void list_remove(struct list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node;
    node->prev = node;
}

#define LIST_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
