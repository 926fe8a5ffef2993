/* Programs in a flash whose power is cut: at every erase and every write of a program that is pushed. What was there stays, but for
 * the program in whose place the new one goes; the new one is there whole, or not at all.
 *
 *     programs_test      the number of cuts */
#include "cortex_m/programs.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (cut %ld, seed %u)\n", __FILE__, __LINE__, #condition, cut, seed); \
            exit(1); \
        } \
    } while (0)

enum { SECTOR = 512, SLOT = 1024, HEAD = 128, ADDRESS = 0x60000000, LARGEST = SLOT - HEAD, IN_RAM = 7 };

static _Alignas(64) uint8_t memory[2 * SLOT];
static long operation, cut = -1;
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

enum { A = 300, B = 32, C = LARGEST, D = 333 };

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
    printf("%ld cuts\n", sweep());
    return 0;
}
