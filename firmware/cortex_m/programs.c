#include "programs.h"

#include <string.h>

#include "../core/sha256.h"
#include "../runner/crc32.h"

enum { MAGIC = 0x474F5250 /* "PROG" */, NAME = 108, HANDLE = 1000 /* and the slot: the platform's own are below */ };

/* At a slot's begin, written when all of the program is there; until then its place is blank. */
typedef struct {
    uint32_t magic, sequence; /* the newest program has the highest */
    uint32_t size;
    char name[NAME + 4];
    uint32_t crc; /* of all that */
} head;

_Static_assert(sizeof(head) == 128 && sizeof(head) % EK_FLASH_UNIT == 0, "the program behind it is aligned to 64 bytes");

static struct {
    const ek_flash *flash;
    ek_platform below;
    uint32_t readers[EK_PROGRAMS];
    head next;      /* of the program that comes in */
    ek_incoming in; /* its bytes, behind the head's place */
} programs;

static ek_area area(int slot) { return programs.flash->program[slot]; }

static const uint8_t *bytes_of(int slot) { return ek_flash_at(programs.flash, area(slot).at) + sizeof(head); }

/* False: the slot holds no whole program. */
static bool read_head(int slot, head *h) {
    if (area(slot).bytes < sizeof *h)
        return false;
    memcpy(h, ek_flash_at(programs.flash, area(slot).at), sizeof *h);
    return h->magic == MAGIC && h->crc == ek_crc32(h, offsetof(head, crc)) && h->size <= area(slot).bytes - sizeof *h;
}

/* The slot of the newest program of that name, or -1. */
static int find(const char *path, uint32_t *size) {
    uint32_t newest = 0;
    int found = -1;
    head h;
    for (int slot = 0; slot < EK_PROGRAMS; slot++)
        if (read_head(slot, &h) && strcmp(h.name, path) == 0 && h.sequence > newest) {
            newest = h.sequence;
            *size = h.size;
            found = slot;
        }
    return found;
}

static int slot_at(const uint8_t *bytes) {
    for (int slot = 0; slot < EK_PROGRAMS; slot++)
        if (area(slot).bytes && bytes == bytes_of(slot))
            return slot;
    return -1;
}

static bool is_program(const char *path) {
    size_t length = strlen(path);
    return length > 4 && length <= NAME && strcmp(path + length - 4, ".ekp") == 0;
}

/* A slot that nobody reads, an empty one or else the older; -1 where there is none of that size. */
static int choose(uint64_t size, uint32_t *sequence) {
    uint32_t oldest = UINT32_MAX;
    int chosen = -1;
    *sequence = 0;
    for (int slot = 0; slot < EK_PROGRAMS; slot++) {
        head h;
        uint32_t age = read_head(slot, &h) ? h.sequence : 0;
        if (age > *sequence)
            *sequence = age;
        if (!programs.readers[slot] && area(slot).bytes >= sizeof h && size <= area(slot).bytes - sizeof h && age < oldest) {
            oldest = age;
            chosen = slot;
        }
    }
    return chosen;
}

/* ---- the platform's files ---- */

static ek_status map(const char *path, ek_file *file, ek_error *error) {
    uint32_t size;
    int slot = find(path, &size);
    if (slot < 0)
        return programs.below.map(path, file, error);
    programs.readers[slot]++;
    *file = (ek_file){bytes_of(slot), size};
    return EK_OK;
}

static void unmap(ek_file *file) {
    int slot = slot_at(file->bytes);
    if (slot < 0) {
        programs.below.unmap(file);
        return;
    }
    programs.readers[slot]--;
    *file = (ek_file){NULL, 0};
}

static bool in_memory(const ek_file *file) { return slot_at(file->bytes) < 0; }

/* Nothing is written there: the flash is blank already. */
static bool pass_over_head(void) {
    uint8_t blank[sizeof(head)];
    memset(blank, 0xFF, sizeof blank);
    return programs.in.have >= sizeof blank || ek_incoming_add(&programs.in, blank, sizeof blank - programs.in.have);
}

/* A head that a cut left half-written cannot be written again, so all of the slot begins anew. */
static bool has_blank_head(int slot) {
    const uint8_t *bytes = ek_flash_at(programs.flash, area(slot).at);
    for (size_t i = 0; i < sizeof(head); i++)
        if (bytes[i] != 0xFF)
            return false;
    return true;
}

static bool begin(int slot, uint32_t size, const uint8_t *digest) {
    uint32_t length = (uint32_t)sizeof(head) + size;
    bool goes_on = digest && has_blank_head(slot) && ek_incoming_resume(&programs.in, programs.flash, area(slot), length, digest);
    return (goes_on || ek_incoming_begin(&programs.in, programs.flash, area(slot), length, digest)) && pass_over_head();
}

static void count(ek_new_file *file) { file->have = programs.in.have - sizeof(head); }

static ek_status take(ek_new_file *file, const char *path, uint64_t size, const uint8_t *digest, ek_error *error) {
    uint32_t sequence;
    int slot = is_program(path) && !programs.in.length ? choose(size, &sequence) : -1; /* one at a time */
    if (slot < 0)
        return programs.below.create(file, path, size, error);
    file->handle = -1;
    if (!begin(slot, (uint32_t)size, digest))
        return ek_fail(error, EK_IO, "the flash of %.100s cannot be erased", path);
    programs.next = (head){.magic = MAGIC, .sequence = sequence + 1, .size = (uint32_t)size};
    memcpy(programs.next.name, path, strlen(path)); /* NAME bytes at most, and zeros are there */
    file->handle = HANDLE + slot;
    count(file);
    return EK_OK;
}

static ek_status create(ek_new_file *file, const char *path, uint64_t size, ek_error *error) {
    return take(file, path, size, NULL, error);
}

static ek_status receive(ek_new_file *file, const char *path, uint64_t size, const uint8_t digest[32], ek_error *error) {
    return take(file, path, size, digest, error);
}

static ek_status write_piece(ek_new_file *file, const void *bytes, size_t size, ek_error *error) {
    if (file->handle < HANDLE)
        return programs.below.write(file, bytes, size, error);
    if (programs.in.length && size > programs.in.length - programs.in.have)
        return ek_fail(error, EK_IO, "%.100s is longer than it was said to be", programs.next.name);
    if (!programs.in.length || !ek_incoming_add(&programs.in, bytes, size) || !pass_over_head())
        return ek_fail(error, EK_IO, "the flash of %.100s cannot be written", programs.next.name);
    count(file);
    return EK_OK;
}

/* Whether the flash holds what was to come. What it does not must not be gone on with. */
static bool is_as_said(int slot) {
    uint8_t digest[32];
    if (!programs.in.has_digest)
        return true;
    ek_sha256_of(bytes_of(slot), programs.next.size, digest);
    if (memcmp(digest, programs.in.digest, sizeof digest) == 0)
        return true;
    ek_incoming_clear(programs.flash, area(slot), sizeof(head));
    return false;
}

static ek_status commit(ek_new_file *file, ek_error *error) {
    if (file->handle < HANDLE)
        return programs.below.commit(file, error);
    int slot = file->handle - HANDLE;
    bool whole = programs.in.length && programs.in.have == programs.in.length;
    programs.in.length = 0;
    file->handle = -1;
    if (!whole || !is_as_said(slot))
        return ek_fail(error, EK_IO, "the flash holds another %.100s than was sent", programs.next.name);
    programs.next.crc = ek_crc32(&programs.next, offsetof(head, crc));
    if (!programs.flash->write(area(slot).at, &programs.next, sizeof programs.next))
        return ek_fail(error, EK_IO, "the flash of %.100s cannot be written", programs.next.name);
    return EK_OK;
}

/* A slot without a head holds nothing, but for who goes on with it. */
static void abandon(ek_new_file *file) {
    if (file->handle < HANDLE)
        programs.below.abandon(file);
    else
        programs.in.length = 0;
    file->handle = -1;
}

static ek_status read_at(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error) {
    uint32_t size;
    int slot = find(path, &size);
    if (slot < 0)
        return programs.below.read_at(path, at, to, room, got, error);
    *got = at < size ? size - (size_t)at : 0;
    if (*got > room)
        *got = room;
    memcpy(to, bytes_of(slot) + (at < size ? at : 0), *got);
    return EK_OK;
}

void ek_programs_join(ek_platform *platform, const ek_flash *flash) {
    memset(&programs, 0, sizeof programs);
    programs.flash = flash;
    programs.below = *platform;
    platform->map = map;
    platform->unmap = unmap;
    platform->in_memory = in_memory;
    platform->create = create;
    platform->receive = receive;
    platform->write = write_piece;
    platform->commit = commit;
    platform->abandon = abandon;
    platform->read_at = read_at;
}
