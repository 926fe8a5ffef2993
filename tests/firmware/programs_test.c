/* Programs in a flash whose power is cut: at every erase and every write of a program that is pushed, and of the push that goes on
 * after that. What was there stays, but for the program in whose place the new one goes; the new one is there whole, or not at all.
 *
 *     programs_test      the number of cuts, without going on and with it */
#include "cortex_m/programs.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (cut %ld, before it %ld, seed %u)\n", __FILE__, __LINE__, #condition, cut, first_cut, seed); \
            exit(1); \
        } \
    } while (0)

enum { SECTOR = 512, SLOT = 2048, HEAD = 128, ADDRESS = 0x60000000, LARGEST = SLOT - HEAD, IN_RAM = 7 };

static _Alignas(64) uint8_t memory[2 * SLOT];
static long operation, cut = -1, first_cut = -1;
static unsigned seed, noise;
static jmp_buf power_is_gone;
static int created_below;

/* ---- the flash ---- */

#include "cut_flash.h"

static ek_flash flash = {
    .memory = memory,
    .address = ADDRESS,
    .program = {{ADDRESS, SLOT}, {ADDRESS + SLOT, SLOT}},
    .sector = sector,
    .erase = erase,
    .write = write_units,
};

/* ---- what lies below: files in RAM, of which this only has to know that they were asked for ---- */

static ek_status map_below(const char *path, ek_file *file, ek_error *error) {
    (void)file;
    return ek_fail(error, EK_NOT_FOUND, "%s", path);
}

static void unmap_below(ek_file *file) { CHECK(!file->bytes); }

static ek_status create_below(ek_new_file *file, const char *path, uint64_t size, ek_error *error) {
    (void)path, (void)size, (void)error;
    created_below++;
    file->handle = IN_RAM;
    return EK_OK;
}

static ek_status write_below(ek_new_file *file, const void *bytes, size_t size, ek_error *error) {
    (void)bytes, (void)size, (void)error;
    CHECK(file->handle == IN_RAM);
    return EK_OK;
}

static ek_status commit_below(ek_new_file *file, ek_error *error) {
    (void)error;
    CHECK(file->handle == IN_RAM);
    return EK_OK;
}

static void abandon_below(ek_new_file *file) { CHECK(file->handle == IN_RAM || file->handle < 0); }

static ek_status read_below(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error) {
    (void)at, (void)to, (void)room, (void)got;
    return ek_fail(error, EK_NOT_FOUND, "%s", path);
}

static ek_platform platform;

static void boot(void) {
    platform = (ek_platform){.map = map_below, .unmap = unmap_below, .create = create_below, .write = write_below,
                             .commit = commit_below, .abandon = abandon_below, .read_at = read_below};
    ek_programs_join(&platform, &flash);
}

/* ---- programs: their bytes follow from their names ---- */

static uint8_t byte_of(const char *name, size_t i) { return (uint8_t)(name[0] * 31 + (int)i * 7 + (int)(i >> 8)); }

static void push(const char *name, size_t size) {
    ek_new_file file;
    ek_error error;
    uint8_t bytes[LARGEST];
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_of(name, i);
    CHECK(platform.create(&file, name, size, &error) == EK_OK);
    for (size_t at = 0, part = 1; at < size; at += part, part = 1 + part * 3 % 71) { /* chunks of all sizes */
        part = size - at < part ? size - at : part;
        CHECK(platform.write(&file, bytes + at, part, &error) == EK_OK);
    }
    CHECK(platform.write(&file, "", 1, &error) != EK_OK || file.handle == IN_RAM);
    CHECK(platform.commit(&file, &error) == EK_OK);
}

/* Mapped where it is there: then it is whole. */
static bool open(const char *name, size_t size, ek_file *file) {
    ek_error error;
    uint8_t tail[4];
    size_t got;
    if (platform.map(name, file, &error) != EK_OK)
        return false;
    CHECK(file->size == size && (uintptr_t)file->bytes % 64 == 0 && !platform.in_memory(file));
    for (size_t i = 0; i < size; i++)
        CHECK(file->bytes[i] == byte_of(name, i));
    CHECK(platform.read_at(name, size - 2, tail, sizeof tail, &got, &error) == EK_OK && got == 2 && tail[1] == byte_of(name, size - 1));
    CHECK(platform.read_at(name, size + 9, tail, sizeof tail, &got, &error) == EK_OK && got == 0);
    return true;
}

static bool is_there(const char *name, size_t size) {
    ek_file file;
    bool there = open(name, size, &file);
    if (there)
        platform.unmap(&file);
    return there;
}

enum { A = 300, B = 32, C = LARGEST, D = 333, E = 1200, F = 1700 /* into the last sector, where the note is */ };

static void fresh(void) {
    memset(memory, 0xFF, sizeof memory);
    cut = -1;
    boot();
    push("a.ekp", A);
    push("b.ekp", B);
    operation = 0;
    noise = seed;
}

/* "b" is loaded while "c" comes, which takes the place of "a". */
static long push_third(void) {
    ek_file loaded;
    CHECK(open("b.ekp", B, &loaded));
    push("c.ekp", C);
    platform.unmap(&loaded);
    return operation;
}

static long sweep(void) {
    long cuts = 0;
    for (seed = 0; seed < 16; seed++) {
        fresh();
        long operations = push_third();
        CHECK(is_there("b.ekp", B) && is_there("c.ekp", C) && !is_there("a.ekp", A));
        for (long at = 0; at < operations; at++, cuts++) {
            fresh();
            cut = at;
            if (!setjmp(power_is_gone)) {
                push_third();
                CHECK(!"the push ended before the cut");
            }
            cut = -1;
            boot();
            CHECK(is_there("b.ekp", B));
            (void)is_there("a.ekp", A); /* whole where it is there */
            (void)is_there("c.ekp", C);
            push("c.ekp", C);
            push("d.ekp", D);
            boot();
            CHECK(is_there("c.ekp", C) && is_there("d.ekp", D));
        }
    }
    return cuts;
}

/* ---- a push that goes on ---- */

static uint64_t had; /* bytes of it that were there when the power went, but for those of the last chunk */

/* As the file group does it, with a host that heeds what it is told. Returns where it began; `least` is where it had to go back to. */
static uint64_t bring(const char *name, size_t size, uint64_t *least) {
    ek_new_file file;
    ek_error error;
    uint8_t bytes[LARGEST], digest[32];
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_of(name, i);
    ek_sha256_of(bytes, size, digest);
    had = 0;
    CHECK(platform.receive(&file, name, size, digest, &error) == EK_OK && file.have <= size);
    uint64_t first = *least = had = file.have;
    while (file.have < size) {
        size_t left = size - (size_t)file.have;
        CHECK(platform.write(&file, bytes + file.have, left < 100 ? left : 100, &error) == EK_OK);
        had = file.have;
        *least = had < *least ? had : *least;
    }
    CHECK(platform.commit(&file, &error) == EK_OK);
    return first;
}

/* While "b" is loaded. False: it ended before the cut. */
static bool bring_cut(const char *name, size_t size, long at) {
    ek_file loaded;
    uint64_t least;
    volatile bool happened = false;
    operation = 0;
    cut = at;
    CHECK(open("b.ekp", B, &loaded));
    if (!setjmp(power_is_gone))
        bring(name, size, &least);
    else
        happened = true;
    cut = -1;
    boot();
    CHECK(is_there("b.ekp", B));
    (void)is_there(name, size); /* whole where it is there */
    return happened;
}

/* It stands where it was cut, at most a unit before; where that one is half-written, at the begin of its sector. Where the cut was in
 * the head, behind all else, it begins anew; so does one that leaves no room for the note. */
static void goes_on(const char *name, size_t size, uint64_t before) {
    uint64_t least, unit = before / EK_FLASH_UNIT * EK_FLASH_UNIT, first = bring(name, size, &least);
    if (size > SLOT - HEAD - 64)
        CHECK(first == 0);
    else if (before > 2 * EK_FLASH_UNIT && (before < size || first > 0)) {
        CHECK(first >= unit - EK_FLASH_UNIT);
        CHECK(least + HEAD >= (unit + HEAD - EK_FLASH_UNIT) / SECTOR * SECTOR || least == 0);
    }
    CHECK(is_there(name, size) && is_there("b.ekp", B));
    boot();
    CHECK(is_there(name, size) && is_there("b.ekp", B));
}

static long resume(const char *name, size_t size) {
    long cuts = 0;
    for (seed = 0; seed < 3; seed++)
        for (long first = 0;; first++) {
            fresh();
            if (!bring_cut(name, size, first))
                break;
            goes_on(name, size, had);
            first_cut = first;
            for (long second = 0;; second++, cuts++) {
                fresh();
                bring_cut(name, size, first);
                if (!bring_cut(name, size, second))
                    break;
                goes_on(name, size, 0); /* what is erased twice may take the note with it */
            }
            first_cut = -1;
            fresh(); /* something else comes after the start: nothing of what was there is taken for it */
            bring_cut(name, size, first);
            uint64_t least;
            CHECK(bring("g.ekp", size, &least) == 0 && is_there("g.ekp", size) && is_there("b.ekp", B));
            fresh(); /* and without a digest it begins anew */
            bring_cut(name, size, first);
            push(name, size);
            CHECK(is_there(name, size) && is_there("b.ekp", B));
            cuts++;
        }
    return cuts;
}

/* What does not have the digest at the end was not what the host sent: it is no program, and the next push does not go on with it. */
static void damage_is_noticed(void) {
    ek_new_file file;
    ek_error error;
    uint8_t bytes[E], digest[32];
    uint64_t least;
    for (size_t i = 0; i < E; i++)
        bytes[i] = byte_of("e.ekp", i);
    ek_sha256_of(bytes, E, digest);
    fresh();
    CHECK(bring_cut("e.ekp", E, 30) && had == 700);
    memory[HEAD + 40] ^= 1;
    CHECK(platform.receive(&file, "e.ekp", E, digest, &error) == EK_OK && file.have > 600);
    while (file.have < E)
        CHECK(platform.write(&file, bytes + file.have, E - (size_t)file.have, &error) == EK_OK);
    CHECK(platform.commit(&file, &error) == EK_IO && !is_there("e.ekp", E));
    CHECK(bring("e.ekp", E, &least) == 0 && is_there("e.ekp", E));
}

/* Only as much is erased as a program takes, and the note's sector. */
static void little_is_erased(void) {
    fresh();
    push("c.ekp", C);
    push("d.ekp", C);
    memset(memory + SLOT - 64, 0, 64);
    operation = 0;
    push("e.ekp", 100); /* its head and its bytes in 8 units, a sector, and the last one */
    CHECK(operation == 8 + 2 && memory[SECTOR] == byte_of("c.ekp", SECTOR - HEAD) && memory[SLOT - 1] == 0xFF);
}

/* A second one while one comes goes elsewhere. */
static void one_at_a_time(void) {
    ek_new_file first = {.handle = -1}, second = {.handle = -1};
    ek_error error;
    fresh();
    created_below = 0;
    CHECK(platform.create(&first, "c.ekp", 10, &error) == EK_OK && created_below == 0);
    CHECK(platform.create(&second, "d.ekp", 10, &error) == EK_OK && created_below == 1);
    CHECK(platform.write(&first, "0123456789", 10, &error) == EK_OK && platform.write(&first, "0", 1, &error) == EK_IO);
    platform.abandon(&first);
    CHECK(platform.create(&first, "c.ekp", 10, &error) == EK_OK && created_below == 1);
    CHECK(platform.commit(&first, &error) == EK_IO); /* not all of it came */
    boot();
    CHECK(is_there("b.ekp", B));
}

static bool fail_to_erase(uint32_t at, uint32_t bytes) { return at + bytes == 0; }

static bool fail_to_write(uint32_t at, const void *bytes, uint32_t size) { return at + size == 0 && !bytes; }

/* What failed is given up on: nothing is written any more, also where the flash would take it again. */
static void flash_that_fails(void) {
    ek_new_file file = {.handle = -1};
    ek_error error;
    uint64_t least;
    fresh();
    flash.erase = fail_to_erase;
    CHECK(platform.create(&file, "e.ekp", 100, &error) == EK_IO && file.handle < 0);
    flash.erase = erase;
    CHECK(platform.create(&file, "e.ekp", 100, &error) == EK_OK);
    flash.write = fail_to_write;
    CHECK(platform.write(&file, "01234567890123456789012345678901", 32, &error) == EK_IO);
    flash.write = write_units;
    CHECK(platform.write(&file, "0", 1, &error) == EK_IO && platform.commit(&file, &error) == EK_IO);
    CHECK(bring("e.ekp", E, &least) == 0 && is_there("e.ekp", E) && is_there("b.ekp", B));
}

/* ---- other things ---- */

static void loaded_programs_stay(void) {
    ek_file a, b;
    fresh();
    CHECK(open("a.ekp", A, &a) && open("b.ekp", B, &b));
    created_below = 0;
    push("c.ekp", C); /* both slots are read */
    CHECK(created_below == 1 && is_there("a.ekp", A) && is_there("b.ekp", B));
    platform.unmap(&b);
    push("c.ekp", C);
    CHECK(created_below == 1 && is_there("a.ekp", A) && is_there("c.ekp", C));
}

static void what_belongs_elsewhere(void) {
    ek_new_file file = {.handle = -1};
    ek_error error;
    fresh();
    created_below = 0;
    push("x.npy", 10);
    push(".ekp", 10);
    CHECK(created_below == 2);
    CHECK(platform.create(&file, "e.ekp", LARGEST + 1, &error) == EK_OK && created_below == 3);
    CHECK(platform.create(&file, "e.ekp", 1ull << 32, &error) == EK_OK && created_below == 4);
    char name[EK_PATH_BYTES];
    memset(name, 'n', sizeof name);
    strcpy(name + 105, ".ekp");
    CHECK(platform.create(&file, name, 10, &error) == EK_OK && created_below == 5);
    push(name + 1, 10); /* as long as a name may be */
    CHECK(is_there(name + 1, 10) && created_below == 5);
    flash.program[0].bytes = flash.program[1].bytes = 0;
    fresh();
    CHECK(created_below == 7);
    flash.program[0].bytes = flash.program[1].bytes = SLOT;
}

static void a_changed_head_is_none(void) {
    fresh();
    for (int bit = 0; bit < HEAD * 8; bit++) {
        memory[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(!is_there("a.ekp", A) && is_there("b.ekp", B));
        memory[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(is_there("a.ekp", A));
}

static void the_same_name_again(void) {
    ek_new_file file;
    ek_error error;
    fresh();
    push("b.ekp", B);
    CHECK(is_there("b.ekp", B) && !is_there("a.ekp", A));
    CHECK(platform.create(&file, "b.ekp", 5, &error) == EK_OK);
    platform.abandon(&file);
    boot();
    CHECK(is_there("b.ekp", B)); /* the one that was whole */
}

int main(void) {
    loaded_programs_stay();
    what_belongs_elsewhere();
    a_changed_head_is_none();
    the_same_name_again();
    damage_is_noticed();
    little_is_erased();
    one_at_a_time();
    flash_that_fails();
    printf("%ld cuts", sweep());
    printf(", %ld\n", resume("e.ekp", E) + resume("f.ekp", F) + resume("h.ekp", C));
    return 0;
}
