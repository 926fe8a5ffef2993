#include "imagegroup.h"

#include <stdio.h>
#include <string.h>

#include "../core/sha256.h"
#include "../runner/fields.h"

enum { STATE = 0, UPLOAD = 1, ERASE = 5 };

/* The group's own codes (Zephyr's img_mgmt). */
enum {
    IMG_NO_IMAGE = 3, IMG_BAD_TRAILER = 5, IMG_NO_FREE_SLOT = 9, IMG_WRITE_FAILED = 12, IMG_ERASE_FAILED = 13, IMG_BAD_SLOT = 14,
    IMG_BAD_OFFSET = 20, IMG_BAD_LENGTH = 21, IMG_BAD_HEADER = 22, IMG_BAD_MAGIC = 23, IMG_BAD_HASH = 24, IMG_BAD_ADDRESS = 25,
    IMG_NOT_NEWER = 27, IMG_PENDING = 28, IMG_TOO_LARGE = 30, IMG_TOO_MUCH = 31, IMG_CONFIRMATION_DENIED = 32, IMG_RUNS_ALREADY = 33,
};

static ek_status refuse(ek_error *error, int code) { return ek_fail(error, (ek_status)code, " "); }

/* The slot that may be written. */
static int other(const ek_images *m) { return 1 - m->running; }

bool ek_images_on_trial(const ek_images *m) {
    ek_slots slots = ek_slots_read(m->flash);
    return slots.good != EK_NO_SLOT && slots.good != m->running;
}

static ek_image_verdict verdict(ek_images *m, int slot) {
    ek_image image;
    if (!m->looked[slot])
        m->verdict[slot] = ek_image_verify(m->flash, slot, m->key, &image);
    m->looked[slot] = true;
    return m->verdict[slot];
}

/* ---- state ---- */

static void put_flag(ek_cbor_writer *to, const char *key, bool value) {
    ek_cbor_write_text(to, key);
    ek_cbor_write_bool(to, value);
}

static void write_image(ek_images *m, int slot, const ek_image *image, const ek_slots *slots, ek_cbor_writer *to) {
    char version[32];
    int length = snprintf(version, sizeof version, "%u.%u.%u", (unsigned)image->major, (unsigned)image->minor, (unsigned)image->revision);
    if (image->build)
        snprintf(version + length, sizeof version - (size_t)length, ".%lu", (unsigned long)image->build);
    bool good = slots->good == slot || slots->good == EK_NO_SLOT, next = slots->trial == slot && !slots->tried;
    ek_cbor_write_map(to, 8);
    ek_put_uint(to, "slot", (uint64_t)slot);
    ek_put_text(to, "version", version);
    ek_cbor_write_text(to, "hash");
    ek_cbor_write_bytes(to, image->hash, 32);
    put_flag(to, "bootable", verdict(m, slot) == EK_IMAGE_WHOLE);
    put_flag(to, "pending", next);
    put_flag(to, "confirmed", good);
    put_flag(to, "active", slot == m->running);
    put_flag(to, "permanent", false);
}

static void write_state(ek_images *m, ek_cbor_writer *to) {
    ek_slots slots = ek_slots_read(m->flash);
    ek_image image[EK_SLOTS];
    bool there[EK_SLOTS];
    uint64_t count = 0;
    for (int i = 0; i < EK_SLOTS; i++)
        count += there[i] = ek_image_open(m->flash, i, &image[i]) == EK_IMAGE_WHOLE;
    ek_cbor_write_map(to, 1);
    ek_cbor_write_text(to, "images");
    ek_cbor_write_array(to, count);
    for (int i = 0; i < EK_SLOTS; i++)
        if (there[i])
            write_image(m, i, &image[i], &slots, to);
}

static ek_status read_state(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    (void)request, (void)error;
    write_state(context, to);
    return EK_OK;
}

/* The slot of an image by its hash; EK_SLOTS: no slot has it. */
static int find(const ek_images *m, const uint8_t hash[32]) {
    ek_image image;
    for (int i = 0; i < EK_SLOTS; i++) {
        int slot = i == 0 ? other(m) : m->running;
        if (ek_image_open(m->flash, slot, &image) == EK_IMAGE_WHOLE && memcmp(image.hash, hash, 32) == 0)
            return slot;
    }
    return EK_SLOTS;
}

/* Once more while it runs it is confirmed already, and a trial that is planned stays. */
static ek_status confirm(ek_images *m, int slot, ek_error *error) {
    if (slot != m->running) /* what never ran may not: there would be no way back */
        return refuse(error, IMG_CONFIRMATION_DENIED);
    if (!ek_images_on_trial(m))
        return EK_OK;
    ek_slots slots = {(uint8_t)slot, EK_NO_SLOT, false};
    return ek_slots_write(m->flash, &slots) ? EK_OK : refuse(error, IMG_WRITE_FAILED);
}

/* Let an image run once, at the next start. It is verified before that: all of it, and its signature. */
static ek_status test(ek_images *m, int slot, ek_error *error) {
    if (slot == m->running)
        return refuse(error, IMG_RUNS_ALREADY);
    if (ek_images_on_trial(m))
        return refuse(error, IMG_PENDING); /* what runs must be confirmed first: it is what to come back to */
    if (verdict(m, slot) != EK_IMAGE_WHOLE)
        return refuse(error, verdict(m, slot) == EK_IMAGE_BAD_TRAILER ? IMG_BAD_TRAILER : IMG_BAD_HASH);
    ek_slots slots = {(uint8_t)m->running, (uint8_t)slot, false};
    return ek_slots_write(m->flash, &slots) ? EK_OK : refuse(error, IMG_WRITE_FAILED);
}

static ek_status write_request(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_images *m = context;
    ek_cbor value;
    uint8_t hash[32];
    bool confirmed;
    if (ek_read_bool(request, "confirm", false, &confirmed, error) != EK_OK)
        return refuse(error, IMG_BAD_HASH);
    bool named = ek_cbor_find(request, "hash", &value);
    if (named && ek_read_bytes(request, "hash", hash, sizeof hash, error) != EK_OK)
        return refuse(error, IMG_BAD_HASH);
    if (!named && !confirmed)
        return refuse(error, IMG_BAD_HASH);
    int slot = named ? find(m, hash) : m->running;
    if (slot == EK_SLOTS)
        return refuse(error, IMG_NO_IMAGE);
    if ((confirmed ? confirm(m, slot, error) : test(m, slot, error)) != EK_OK)
        return error->status;
    write_state(m, to);
    return EK_OK;
}

/* ---- upload and erase ---- */

/* Take the other slot for something new: what is planned for it is forgotten first. */
static ek_status claim(ek_images *m, ek_error *error) {
    int slot = other(m);
    ek_slots slots = ek_slots_read(m->flash);
    if (slots.good == slot)
        return refuse(error, IMG_NO_FREE_SLOT); /* this program runs on trial: the other one is what to come back to */
    m->in.length = 0;
    m->looked[slot] = false;
    if (slots.trial == EK_NO_SLOT)
        return EK_OK;
    slots = (ek_slots){(uint8_t)m->running, EK_NO_SLOT, false};
    return ek_slots_write(m->flash, &slots) ? EK_OK : refuse(error, IMG_WRITE_FAILED);
}

static bool is_newer(const ek_image *a, const ek_image *b) {
    if (a->major != b->major)
        return a->major > b->major;
    return a->minor != b->minor ? a->minor > b->minor : a->revision > b->revision;
}

/* The first chunk must hold the header, which tells whether the image can run in this slot at all. */
static ek_status check_header(ek_images *m, const ek_cbor *request, const uint8_t *bytes, size_t size, ek_error *error) {
    ek_image image, now;
    bool upgrade;
    if (size < EK_IMAGE_HEADER)
        return refuse(error, IMG_BAD_HEADER);
    ek_image_verdict found = ek_image_header(bytes, m->flash->slot[other(m)], &image);
    if (found != EK_IMAGE_WHOLE)
        return refuse(error, found == EK_IMAGE_MISSING ? IMG_BAD_MAGIC : found == EK_IMAGE_BAD_ADDRESS ? IMG_BAD_ADDRESS : IMG_BAD_HEADER);
    if (ek_read_bool(request, "upgrade", false, &upgrade, error) != EK_OK)
        return refuse(error, IMG_BAD_HEADER);
    if (upgrade && ek_image_open(m->flash, m->running, &now) == EK_IMAGE_WHOLE && !is_newer(&image, &now))
        return refuse(error, IMG_NOT_NEWER);
    return EK_OK;
}

static bool is_under_way(const ek_images *m, uint64_t length, const uint8_t *digest) {
    return m->in.length == length && digest && m->in.has_digest && memcmp(digest, m->in.digest, sizeof m->in.digest) == 0;
}

/* The first chunk of an image. With the digest of the upload under way, or of one that a restart cut, it goes on where that stands. */
static ek_status begin(ek_images *m, const ek_cbor *request, const uint8_t *bytes, size_t size, ek_error *error) {
    uint64_t length = 0, image = 0;
    uint8_t given[32] = {0};
    ek_cbor value;
    const uint8_t *digest = ek_cbor_find(request, "sha", &value) ? given : NULL;
    ek_area slot = m->flash->slot[other(m)];
    if (digest && ek_read_bytes(request, "sha", given, sizeof given, error) != EK_OK)
        return refuse(error, IMG_BAD_HASH);
    if (ek_read_uint(request, "len", true, UINT32_MAX, &length, error) != EK_OK || length == 0)
        return refuse(error, IMG_BAD_LENGTH);
    if (ek_read_uint(request, "image", false, 0, &image, error) != EK_OK)
        return refuse(error, IMG_BAD_SLOT);
    if (is_under_way(m, length, digest))
        return EK_OK;
    if (length > slot.bytes)
        return refuse(error, IMG_TOO_LARGE);
    if (check_header(m, request, bytes, size, error) != EK_OK || claim(m, error) != EK_OK)
        return error->status;
    if ((digest && ek_incoming_resume(&m->in, m->flash, slot, (uint32_t)length, digest)) ||
        ek_incoming_begin(&m->in, m->flash, slot, (uint32_t)length, digest))
        return EK_OK;
    return refuse(error, IMG_ERASE_FAILED);
}

/* Whether what lies in the flash has the digest that the host gave. What has not must not be gone on with: it is forgotten. */
static bool matches(ek_images *m) {
    uint8_t digest[32];
    ek_sha256_of(ek_flash_at(m->flash, m->in.area.at), m->in.length, digest);
    if (memcmp(digest, m->in.digest, sizeof digest) == 0)
        return true;
    m->in.length = 0;
    ek_incoming_clear(m->flash, m->in.area, m->in.area.bytes);
    return false;
}

/* A chunk that does not begin where the upload ends is not taken; the answer says what is wanted. */
static ek_status upload(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_images *m = context;
    ek_incoming *in = &m->in;
    uint64_t offset = 0;
    ek_cbor value;
    const uint8_t *bytes;
    size_t size;
    if (ek_read_uint(request, "off", true, UINT64_MAX, &offset, error) != EK_OK || !ek_cbor_find(request, "data", &value) ||
        !ek_cbor_bytes(&value, &bytes, &size))
        return refuse(error, IMG_BAD_OFFSET);
    if (offset == 0 && ek_cbor_find(request, "len", &value) && begin(m, request, bytes, size, error) != EK_OK)
        return error->status;
    if (in->length == 0)
        return refuse(error, IMG_BAD_OFFSET);
    if (offset == in->have && in->have < in->length) {
        if (size > in->length - in->have)
            return refuse(error, IMG_TOO_MUCH);
        m->looked[other(m)] = false;
        if (!ek_incoming_add(in, bytes, size))
            return refuse(error, IMG_WRITE_FAILED);
    }
    bool whole = in->have == in->length && in->has_digest;
    ek_cbor_write_map(to, 1 + whole);
    ek_put_uint(to, "off", in->have);
    if (whole)
        put_flag(to, "match", matches(m));
    return EK_OK;
}

static ek_status erase(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_images *m = context;
    uint64_t slot = (uint64_t)other(m);
    if (ek_read_uint(request, "slot", false, EK_SLOTS - 1, &slot, error) != EK_OK || slot != (uint64_t)other(m))
        return refuse(error, IMG_BAD_SLOT);
    if (claim(m, error) != EK_OK)
        return error->status;
    if (!ek_incoming_clear(m->flash, m->flash->slot[slot], m->flash->slot[slot].bytes))
        return refuse(error, IMG_ERASE_FAILED);
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

const ek_smp_command ek_image_commands[] = {
    {STATE, EK_SMP_READ, read_state},
    {STATE, EK_SMP_WRITE, write_request},
    {UPLOAD, EK_SMP_WRITE, upload},
    {ERASE, EK_SMP_WRITE, erase},
    {0, 0, NULL},
};
