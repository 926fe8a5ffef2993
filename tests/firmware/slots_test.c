/* The slots in a flash whose power is cut: at every erase and every write of an update, in the midst of it. Whatever was cut, the
 * bootloader finds an image that is whole and signed, the next update succeeds, and nothing that was not tried stays.
 *
 *     slots_test sweep KEY A B C D     A and D are for slot 0, B and C for slot 1
 *     slots_test resume KEY A B C      an upload that a cut ended goes on after the next start, and again after a cut in that
 *     slots_test flips KEY A B         no image with a changed bit is taken
 *     slots_test group KEY A B C D     what the image group refuses
 *     slots_test ed25519               lines "key message signature" in hexadecimal from stdin, "-" for no message: 1 or 0 each */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/ed25519.h"
#include "core/sha256.h"
#include "runner/fields.h"
#include "serial/imagegroup.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (cut %ld, then %ld, seed %u, log %d)\n", __FILE__, __LINE__, #condition, cut, second_cut, seed, filled); \
            exit(1); \
        } \
    } while (0)

enum { SECTOR = 512, LOG = 128 /* four records */, SLOT = 2048, BYTES = 2 * SECTOR + 2 * SLOT, ADDRESS = 0x60000000, CHUNK = 200, HEADER = 512 };

typedef struct {
    uint8_t bytes[SLOT];
    uint32_t size;
    uint8_t hash[32];
} image;

static uint8_t memory[BYTES], key[32];
static image images[4]; /* A, B, C, D */
static long operation, cut = -1, second_cut = -1;
static unsigned seed, noise;
static int filled;
static jmp_buf power_is_gone;

/* ---- signatures ---- */

bool __real_ek_ed25519_verify(const uint8_t key[32], const void *message, size_t bytes, const uint8_t signature[64]);
bool __wrap_ek_ed25519_verify(const uint8_t key[32], const void *message, size_t bytes, const uint8_t signature[64]);

/* The linker puts this in the verifier's place. Every start verifies the same few images: each question is answered by the verifier
 * itself, but only once, which makes the sweep a hundred times as fast. */
bool __wrap_ek_ed25519_verify(const uint8_t by[32], const void *message, size_t bytes, const uint8_t signature[64]) {
    static struct {
        uint8_t question[128];
        bool answer;
    } known[16];
    static unsigned count;
    uint8_t question[128];
    if (bytes != 32)
        return __real_ek_ed25519_verify(by, message, bytes, signature);
    memcpy(question, by, 32);
    memcpy(question + 32, message, 32);
    memcpy(question + 64, signature, 64);
    for (unsigned i = 0; i < count && i < 16; i++)
        if (memcmp(known[i].question, question, sizeof question) == 0)
            return known[i].answer;
    unsigned at = count++ % 16;
    memcpy(known[at].question, question, sizeof question);
    return known[at].answer = __real_ek_ed25519_verify(by, message, bytes, signature);
}

/* ---- the flash ---- */

#include "cut_flash.h"

static const ek_flash flash = {
    .memory = memory,
    .address = ADDRESS,
    .log = {{ADDRESS, LOG}, {ADDRESS + SECTOR, LOG}},
    .slot = {{ADDRESS + 2 * SECTOR, SLOT}, {ADDRESS + 2 * SECTOR + SLOT, SLOT}},
    .sector = sector,
    .erase = erase,
    .write = write_units,
};

/* ---- the board: what it runs, and its image group ---- */

static ek_images group;
static uint8_t request[512], response[2048];

static const ek_smp_group groups[] = {{EK_IMAGE_GROUP, ek_image_commands, &group}};
static const ek_smp_server server = {groups, 1, sizeof response, NULL, NULL};

/* What may run at the next start: the slot that was confirmed last, and the one whose trial or confirmation was asked for. */
static int settled, asked;

static bool holds(int slot, const image *i) { return memcmp(ek_flash_at(&flash, flash.slot[slot].at), i->bytes, i->size) == 0; }

/* A start: the bootloader, then the firmware. What it starts is one of the images that were ever uploaded, to the last bit. */
static void boot(void) {
    int slot = ek_slots_choose(&flash, key);
    CHECK(slot == 0 || slot == 1);
    CHECK(slot == settled || slot == asked);
    if (slot == asked) /* once */
        asked = settled;
    CHECK(slot == 0 ? holds(0, &images[0]) || holds(0, &images[3]) : holds(1, &images[1]) || holds(1, &images[2]));
    group = (ek_images){.flash = &flash, .key = key, .running = slot};
}

/* Write a map's keys before this; the answer's error code, 0 for none, and its map. */
static int ask(uint8_t op, uint8_t command, size_t size, ek_cbor *answer) {
    static uint8_t sequence;
    uint8_t head[EK_SMP_HEADER] = {(uint8_t)(8 | op), 0, (uint8_t)(size >> 8), (uint8_t)size, 0, EK_IMAGE_GROUP, sequence++, command};
    memcpy(request, head, sizeof head);
    size_t length = ek_smp_handle(&server, request, EK_SMP_HEADER + size, response);
    ek_cbor error, code;
    uint64_t value = 0;
    CHECK(ek_cbor_open(answer, response + EK_SMP_HEADER, length - EK_SMP_HEADER));
    if (ek_cbor_find(answer, "err", &error)) {
        CHECK(ek_cbor_find(&error, "rc", &code) && ek_cbor_uint(&code, &value) && value != 0);
    }
    return (int)value;
}

static ek_cbor_writer body(void) { return (ek_cbor_writer){request + EK_SMP_HEADER, request + sizeof request, false}; }

static int set_state(const uint8_t *hash, bool confirm) {
    ek_cbor_writer to = body();
    ek_cbor answer;
    ek_cbor_write_map(&to, 1 + (hash != NULL));
    if (hash) {
        ek_cbor_write_text(&to, "hash");
        ek_cbor_write_bytes(&to, hash, 32);
    }
    ek_cbor_write_text(&to, "confirm");
    ek_cbor_write_bool(&to, confirm);
    int before = asked;
    asked = confirm ? group.running : 1 - group.running;
    int code = ask(EK_SMP_WRITE, 0, (size_t)(to.at - request) - EK_SMP_HEADER, &answer);
    if (code)
        asked = before;
    else if (confirm)
        settled = group.running;
    return code;
}

static int chunk(const image *i, uint32_t offset, uint32_t size, uint64_t *there, bool *match) {
    ek_cbor_writer to = body();
    ek_cbor answer, value;
    ek_cbor_write_map(&to, offset ? 2 : 4);
    ek_put_uint(&to, "off", offset);
    ek_cbor_write_text(&to, "data");
    ek_cbor_write_bytes(&to, i->bytes + offset, size);
    if (offset == 0) {
        uint8_t digest[32];
        ek_sha256_of(i->bytes, i->size < SLOT ? i->size : SLOT, digest);
        ek_put_uint(&to, "len", i->size);
        ek_cbor_write_text(&to, "sha");
        ek_cbor_write_bytes(&to, digest, sizeof digest);
    }
    int code = ask(EK_SMP_WRITE, 1, (size_t)(to.at - request) - EK_SMP_HEADER, &answer);
    *match = false;
    if (code == 0) {
        CHECK(ek_cbor_find(&answer, "off", &value) && ek_cbor_uint(&value, there));
        if (ek_cbor_find(&answer, "match", &value))
            CHECK(ek_cbor_bool(&value, match));
    }
    return code;
}

/* Returns where the upload began, and sets `least` to where it had to go back to: the same, unless a unit was half-written. */
static uint64_t upload_from(const image *i, uint64_t *least) {
    uint64_t there = 0, first = 0;
    bool match = false, begun = false;
    *least = UINT64_MAX;
    do {
        uint32_t left = i->size - (uint32_t)there;
        CHECK(chunk(i, (uint32_t)there, left < CHUNK ? left : CHUNK, &there, &match) == 0);
        asked = settled;
        if (!begun)
            first = there;
        begun = true;
        *least = there < *least ? there : *least;
    } while (there < i->size);
    CHECK(match);
    return first;
}

static void upload(const image *i) {
    uint64_t least;
    upload_from(i, &least);
}

static bool confirmed(void) { return !ek_images_on_trial(&group); }

/* ---- what a host does ---- */

/* Flash an image, from wherever the board stands: as `edgekit flash` does. */
static void flash_image(const image *i, int slot) {
    if (!confirmed())
        CHECK(set_state(NULL, true) == 0);
    if (!holds(group.running, i)) {
        upload(i);
        CHECK(set_state(i->hash, false) == 0);
        boot();
        CHECK(group.running == slot && !confirmed());
        CHECK(set_state(NULL, true) == 0);
    }
    CHECK(group.running == slot && confirmed());
}

/* B on trial, which nobody confirms; then C, which somebody does; then D into the slot of A. */
static void story(void) {
    upload(&images[1]);
    CHECK(set_state(images[1].hash, false) == 0);
    boot();
    CHECK(group.running == 1 && !confirmed());
    boot();
    CHECK(group.running == 0 && confirmed());
    flash_image(&images[2], 1);
    boot();
    CHECK(group.running == 1 && confirmed());
    flash_image(&images[3], 0);
}

static void fresh(void) {
    memset(memory, 0xFF, sizeof memory);
    memcpy(memory + 2 * SECTOR, images[0].bytes, images[0].size);
    cut = -1;
    settled = asked = 0;
    for (int i = 0; i < filled; i++)
        CHECK(ek_slots_write(&flash, &(ek_slots){0, EK_NO_SLOT, false}));
    boot();
    operation = 0;
    noise = seed;
}

static long story_operations(void) {
    fresh();
    story();
    return operation;
}

/* The story up to the first cut, then a start up to the second one. False: the second one came too late to be any. */
static bool cut_twice(long first, long second) {
    volatile bool happened = false;
    fresh();
    cut = first;
    if (!setjmp(power_is_gone)) {
        story();
        CHECK(!"the story ended before the cut");
    }
    second_cut = second;
    operation = 0;
    cut = second;
    if (second >= 0) {
        if (!setjmp(power_is_gone))
            boot();
        else
            happened = true;
    }
    cut = -1;
    return happened || second < 0;
}

static void recover(void) {
    boot();
    bool on_trial = !confirmed();
    int slot = group.running;
    boot(); /* nobody confirmed */
    CHECK(confirmed() && (on_trial ? group.running != slot : group.running == slot));
    boot();
    CHECK(confirmed());
    const image *next = group.running == 0 ? &images[2] : &images[3];
    flash_image(next, group.running == 0);
    boot();
    CHECK(holds(group.running, next) && confirmed());
}

static void sweep(void) {
    long cuts = 0;
    for (filled = 0; filled < 8; filled++)
        for (seed = 0; seed < 8; seed++) {
            long operations = story_operations();
            for (long first = 0; first < operations; first++)
                for (long second = -1; cut_twice(first, second); second++) {
                    recover();
                    cuts++;
                    second_cut = -1;
                }
        }
    printf("%ld cuts\n", cuts);
}

/* ---- an upload that goes on ---- */

/* Bytes that were surely written when the power went: the unit that was being written then is not counted. */
static uint32_t written(void) { return group.in.length && group.in.have ? (group.in.have - 1) / EK_FLASH_UNIT * EK_FLASH_UNIT : 0; }

static bool upload_cut(const image *i, long at) {
    volatile bool happened = false;
    operation = 0;
    cut = at;
    if (!setjmp(power_is_gone))
        upload(i);
    else
        happened = true;
    cut = -1;
    return happened;
}

/* It stands where it was cut, at most a unit before; where that one is half-written, at the begin of its sector. The rest of a header
 * is blank, so that a cut in it cannot be seen. */
static void goes_on(const image *i, uint32_t had) {
    uint64_t least, first = upload_from(i, &least);
    if (had > HEADER + EK_FLASH_UNIT) {
        CHECK(first >= had - EK_FLASH_UNIT);
        CHECK(least >= had / SECTOR * SECTOR);
    }
    CHECK(upload_from(i, &least) == i->size); /* it is there */
    boot();
    CHECK(upload_from(i, &least) == (i->size - 1) / EK_FLASH_UNIT * EK_FLASH_UNIT); /* but for a last look */
    CHECK(set_state(i->hash, false) == 0);
    boot();
    CHECK(group.running == 1 && holds(1, i));
}

static long resume(const image *i, const image *another) {
    long cuts = 0;
    for (seed = 0; seed < 8; seed++)
        for (long first = 0;; first++) {
            fresh();
            if (!upload_cut(i, first))
                break;
            uint32_t had = written();
            boot();
            goes_on(i, had);
            for (second_cut = 0;; second_cut++) {
                fresh();
                upload_cut(i, first);
                boot();
                if (!upload_cut(i, second_cut))
                    break;
                had = 0; /* what is erased twice may take the note with it */
                boot();
                goes_on(i, had);
                cuts++;
            }
            second_cut = -1;
            fresh(); /* something else comes after the start: nothing of what was there is taken for it */
            upload_cut(i, first);
            boot();
            upload(another);
            CHECK(set_state(another->hash, false) == 0);
            cuts++;
        }
    return cuts;
}

/* What does not have the digest at the end was not what the host sent: the next upload does not go on with it. */
static void damage_is_noticed(const image *i) {
    uint64_t there = 0;
    bool match = true;
    fresh();
    CHECK(upload_cut(i, 20)); /* four erases, the note's two units, 14 of the image */
    memory[2 * SECTOR + SLOT + 40] ^= 1; /* a sector before the one that comes again */
    boot();
    CHECK(chunk(i, 0, CHUNK, &there, &match) == 0 && there > HEADER);
    while (there < i->size)
        CHECK(chunk(i, (uint32_t)there, i->size - (uint32_t)there < CHUNK ? i->size - (uint32_t)there : CHUNK, &there, &match) == 0);
    CHECK(!match);
    CHECK(set_state(i->hash, false) == 3);
    goes_on(i, 0);
}

static void resume_all(void) {
    CHECK(images[1].size <= SLOT - SECTOR && images[2].size > SLOT - SECTOR); /* without the note's sector, and with it */
    printf("%ld cuts\n", resume(&images[1], &images[2]) + resume(&images[2], &images[1]));
    damage_is_noticed(&images[1]);
}

/* ---- other things ---- */

static void flips(void) {
    ek_image found;
    fresh();
    for (uint32_t bit = 0; bit < images[0].size * 8; bit += 3) {
        memory[2 * SECTOR + bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(ek_image_verify(&flash, 0, key, &found) != EK_IMAGE_WHOLE);
        memory[2 * SECTOR + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(ek_image_verify(&flash, 0, key, &found) == EK_IMAGE_WHOLE);
    key[0] ^= 1;
    CHECK(ek_image_verify(&flash, 0, key, &found) == EK_IMAGE_OTHER_KEY);
    key[0] ^= 1;
    memcpy(memory + 2 * SECTOR + SLOT, images[0].bytes, images[0].size);
    CHECK(ek_image_verify(&flash, 1, key, &found) == EK_IMAGE_BAD_ADDRESS);
    for (uint32_t size = 0; size < images[0].size; size++) { /* cut short: what follows is erased */
        memory[2 * SECTOR + images[0].size - 1 - size] = 0xFF;
        if (images[0].bytes[images[0].size - 1 - size] != 0xFF)
            CHECK(ek_image_verify(&flash, 0, key, &found) != EK_IMAGE_WHOLE);
    }
    CHECK(ek_slots_choose(&flash, key) == EK_NO_SLOT);
}

static void refusals(void) {
    uint64_t there = 0;
    bool match;
    image bad = images[1];
    fresh();
    CHECK(chunk(&images[1], CHUNK, CHUNK, &there, &match) == 20); /* no upload */
    CHECK(chunk(&images[1], 0, 31, &there, &match) == 22);
    CHECK(chunk(&images[0], 0, CHUNK, &there, &match) == 25); /* for the other slot */
    bad.bytes[0] ^= 1;
    CHECK(chunk(&bad, 0, CHUNK, &there, &match) == 23);
    bad = images[1];
    bad.size = SLOT + 1;
    CHECK(chunk(&bad, 0, CHUNK, &there, &match) == 30);
    CHECK(set_state(images[1].hash, false) == 3);
    CHECK(set_state(images[0].hash, false) == 33);
    CHECK(set_state(NULL, false) == 24);
    CHECK(set_state(NULL, true) == 0);

    CHECK(chunk(&images[1], 0, CHUNK, &there, &match) == 0 && there == CHUNK);
    CHECK(chunk(&images[1], 0, CHUNK, &there, &match) == 0 && there == CHUNK); /* goes on where it stands */
    CHECK(chunk(&images[1], 3 * CHUNK, CHUNK, &there, &match) == 0 && there == CHUNK);
    upload(&images[1]);
    CHECK(set_state(images[1].hash, true) == 32); /* never ran */

    bad = images[1];
    bad.bytes[bad.size - 1] ^= 1; /* of the signature */
    upload(&bad);
    CHECK(set_state(bad.hash, false) == 24);
    boot();
    CHECK(group.running == 0);

    upload(&images[1]);
    CHECK(set_state(images[1].hash, false) == 0);
    boot();
    CHECK(group.running == 1);
    CHECK(chunk(&images[0], 0, CHUNK, &there, &match) == 9); /* what it goes back to stays */
    CHECK(set_state(images[0].hash, false) == 28);
    boot();
    CHECK(group.running == 0);

    CHECK(set_state(images[1].hash, false) == 0);
    upload(&images[2]); /* in the place of what was to be tried: nobody asked for a trial of this one */
    boot();
    CHECK(group.running == 0);
    CHECK(set_state(images[2].hash, false) == 0);
    memory[2 * SECTOR + SLOT + 600] ^= 1; /* after it was verified */
    boot();
    CHECK(group.running == 0);
}

static size_t unhex(const char *text, uint8_t *to) {
    size_t size = 0;
    unsigned byte;
    for (; text[0] != '-' && sscanf(text, "%2x", &byte) == 1; text += 2)
        to[size++] = (uint8_t)byte;
    return size;
}

static void check_signatures(void) {
    static char texts[3][4200];
    static uint8_t a[64], m[2100], s[64];
    while (scanf("%4199s %4199s %4199s", texts[0], texts[1], texts[2]) == 3) {
        unhex(texts[0], a);
        unhex(texts[2], s);
        printf("%d\n", ek_ed25519_verify(a, m, unhex(texts[1], m), s));
    }
}

static size_t load(const char *path, uint8_t *to, size_t room) {
    FILE *file = fopen(path, "rb");
    if (!file)
        exit(2);
    size_t size = fread(to, 1, room, file);
    fclose(file);
    return size;
}

int main(int count, char **words) {
    if (strcmp(words[1], "ed25519") == 0) {
        check_signatures();
        return 0;
    }
    load(words[2], key, sizeof key);
    for (int i = 0; i + 3 < count; i++) {
        images[i].size = (uint32_t)load(words[i + 3], images[i].bytes, SLOT);
        memcpy(images[i].hash, images[i].bytes + images[i].size - 64 - 4 - 32 - 4 - 32, 32); /* of the trailer's three values the first */
    }
    if (strcmp(words[1], "sweep") == 0)
        sweep();
    else if (strcmp(words[1], "resume") == 0)
        resume_all();
    else if (strcmp(words[1], "flips") == 0)
        flips();
    else
        refusals();
    return 0;
}
