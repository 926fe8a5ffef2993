#include "store.h"

#include <string.h>

enum { BLOCKS = 32, ALIGNED = 64 };
typedef enum { NOTHING, MEMORY, NEW_FILE, A_FILE, NAMELESS } kind; /* NAMELESS: replaced or removed while it is read */

typedef struct {
    kind kind;
    size_t at, room; /* its place in the region */
    size_t size;     /* of the file so far */
    uint32_t readers, age;
    ek_path name;
} block;

static struct {
    uint8_t *base;
    size_t bytes, peak;
    uint32_t ages;
    block blocks[BLOCKS];
} store;

void ek_store_open(void *region, size_t bytes) {
    memset(&store, 0, sizeof store);
    store.base = region;
    store.bytes = bytes;
}

size_t ek_store_peak(void) { return store.peak; }

static uint8_t *bytes_of(const block *b) { return store.base + b->at; }

static block *each(size_t i) { return &store.blocks[i]; }

/* ---- places in the region ---- */

static bool is_free(size_t from, size_t room) {
    if (room > store.bytes || from > store.bytes - room)
        return false;
    for (size_t i = 0; i < BLOCKS; i++)
        if (each(i)->kind != NOTHING && from < each(i)->at + each(i)->room && each(i)->at < from + room)
            return false;
    return true;
}

/* Memory goes to the lowest place where it fits, files to the highest, so that the hole between them stays one. False: none. */
static bool find_place(kind kind, size_t room, size_t *place) {
    bool low = kind == MEMORY, found = room <= store.bytes && is_free(low ? 0 : store.bytes - room, room);
    *place = low || !found ? 0 : store.bytes - room;
    for (size_t i = 0; i < BLOCKS; i++) {
        const block *b = each(i);
        size_t at = low ? b->at + b->room : b->at - room; /* may wrap around: is_free sees it */
        if (b->kind == NOTHING || !is_free(at, room) || (found && (low ? at > *place : at < *place)))
            continue;
        found = true;
        *place = at;
    }
    return found;
}

static block *oldest_unread(void) {
    block *oldest = NULL;
    for (size_t i = 0; i < BLOCKS; i++)
        if (each(i)->kind == A_FILE && !each(i)->readers && (!oldest || each(i)->age < oldest->age))
            oldest = each(i);
    return oldest;
}

static block *free_entry(void) {
    for (size_t i = 0; i < BLOCKS; i++)
        if (each(i)->kind == NOTHING)
            return each(i);
    return NULL;
}

/* What files may still take, those that give way counted as gone. */
static size_t free_bytes(void) {
    size_t held = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        held += each(i)->kind == NOTHING || (each(i)->kind == A_FILE && !each(i)->readers) ? 0 : each(i)->room;
    return store.bytes - held;
}

static void note_peak(void) {
    size_t used = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        used += each(i)->kind == NOTHING ? 0 : each(i)->room;
    if (used > store.peak)
        store.peak = used;
}

/* A new block, after old files have gone as far as they must. */
static block *take(kind kind, uint64_t bytes) {
    if (bytes > store.bytes)
        return NULL;
    size_t room = bytes ? ((size_t)bytes + ALIGNED - 1) / ALIGNED * ALIGNED : ALIGNED;
    for (;;) {
        block *b = free_entry(), *old;
        size_t at;
        if (b && find_place(kind, room, &at)) {
            *b = (block){.kind = kind, .at = at, .room = room, .age = ++store.ages};
            note_peak();
            return b;
        }
        if (!(old = oldest_unread()))
            return NULL;
        old->kind = NOTHING;
    }
}

static void *allocate(size_t bytes) {
    block *b = take(MEMORY, bytes);
    return b ? bytes_of(b) : NULL;
}

static void release(void *memory) {
    for (size_t i = 0; i < BLOCKS; i++)
        if (each(i)->kind == MEMORY && bytes_of(each(i)) == memory)
            each(i)->kind = NOTHING;
}

/* ---- files ---- */

static block *find(const char *path) {
    for (size_t i = 0; i < BLOCKS; i++)
        if (each(i)->kind == A_FILE && strcmp(each(i)->name.text, path) == 0)
            return each(i);
    return NULL;
}

/* Its name is free; its bytes stay as long as somebody reads them. */
static void forget(block *b) { b->kind = b->readers ? NAMELESS : NOTHING; }

static ek_status missing(const char *path, ek_error *error) {
    return ek_fail(error, EK_NOT_FOUND, "there is no file %.160s on the board, or it gave way to others", path);
}

static ek_status map(const char *path, ek_file *file, ek_error *error) {
    block *b = find(path);
    *file = (ek_file){NULL, 0};
    if (!b)
        return missing(path, error);
    b->readers++;
    *file = (ek_file){bytes_of(b), b->size};
    return EK_OK;
}

static void unmap(ek_file *file) {
    for (size_t i = 0; file->bytes && i < BLOCKS; i++) {
        block *b = each(i);
        if ((b->kind != A_FILE && b->kind != NAMELESS) || bytes_of(b) != file->bytes)
            continue;
        b->readers--;
        if (b->kind == NAMELESS)
            forget(b);
    }
    *file = (ek_file){NULL, 0};
}

static ek_status create(ek_new_file *file, const char *path, uint64_t size, ek_error *error) {
    block *b = take(NEW_FILE, size);
    file->handle = -1;
    if (!b)
        return ek_fail(error, EK_NO_SPACE, "%.100s does not fit: %lu bytes, and the board has %lu for all", path, (unsigned long)size,
                       (unsigned long)store.bytes);
    file->handle = (int)(b - store.blocks);
    file->have = 0;
    strncpy(b->name.text, path, sizeof b->name.text - 1);
    return EK_OK;
}

static ek_status write_piece(ek_new_file *file, const void *bytes, size_t size, ek_error *error) {
    block *b = each((size_t)file->handle);
    if (size > b->room - b->size)
        return ek_fail(error, EK_IO, "%.160s is longer than it was said to be", b->name.text);
    memcpy(bytes_of(b) + b->size, bytes, size);
    b->size += size;
    file->have = b->size;
    return EK_OK;
}

static ek_status commit(ek_new_file *file, ek_error *error) {
    block *b = each((size_t)file->handle), *old = find(b->name.text);
    (void)error;
    if (old)
        forget(old);
    b->kind = A_FILE;
    file->handle = -1;
    return EK_OK;
}

static void abandon(ek_new_file *file) {
    if (file->handle >= 0)
        each((size_t)file->handle)->kind = NOTHING;
    file->handle = -1;
}

static ek_status read_at(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error) {
    block *b = find(path);
    *got = 0;
    if (!b)
        return missing(path, error);
    if (at < b->size)
        *got = b->size - (size_t)at < room ? b->size - (size_t)at : room;
    memcpy(to, bytes_of(b) + at, *got);
    return EK_OK;
}

static ek_status remove_file(const char *path, ek_error *error) {
    block *b = find(path);
    (void)error;
    if (b)
        forget(b);
    return EK_OK;
}

static bool disk_free(const char *path, uint64_t *bytes) {
    (void)path;
    *bytes = free_bytes();
    return true;
}

/* Of a file's pages nothing can be given back. */
static void keep(const void *bytes, size_t size) { (void)bytes, (void)size; }

void ek_store_join(ek_platform *platform) {
    platform->allocate = allocate;
    platform->release = release;
    platform->memory_limit = store.bytes;
    platform->map = map;
    platform->unmap = unmap;
    platform->forget = keep;
    platform->create = create;
    platform->write = write_piece;
    platform->commit = commit;
    platform->abandon = abandon;
    platform->read_at = read_at;
    platform->remove = remove_file;
    platform->disk_free = disk_free;
}
