#include "filegroup.h"

#include <string.h>

#include "../core/sha256.h"
#include "../runner/crc32.h"
#include "../runner/fields.h"

enum { FILE_DATA = 0, FILE_STATUS = 1, FILE_HASH = 2, FILE_CLOSE = 4 };

/* The group's own codes (Zephyr's fs_mgmt). */
enum { FS_UNKNOWN = 1, FS_BAD_NAME = 2, FS_NOT_FOUND = 3, FS_OPEN_FAILED = 5, FS_WRITE_FAILED = 10, FS_BAD_OFFSET = 11, FS_NO_HASH = 13 };

static ek_status refuse(ek_error *error, int code) { return ek_fail(error, (ek_status)code, " "); }

static ek_status read_name(const ek_cbor *request, ek_path *name, ek_error *error) {
    return ek_read_path(request, "name", true, name, error) == EK_OK ? EK_OK : refuse(error, FS_BAD_NAME);
}

static void write_offset(ek_cbor_writer *to, uint64_t offset) {
    ek_cbor_write_map(to, 1);
    ek_put_uint(to, "off", offset);
}

/* ---- upload ---- */

static void give_up(ek_files *f) {
    if (f->name.text[0])
        f->platform->abandon(&f->file);
    f->name.text[0] = 0;
}

static bool read_digest(const ek_cbor *request, uint8_t digest[32]) {
    ek_cbor value;
    const uint8_t *bytes;
    size_t size;
    if (!ek_cbor_find(request, "sha", &value) || !ek_cbor_bytes(&value, &bytes, &size) || size != 32)
        return false;
    memcpy(digest, bytes, 32);
    return true;
}

/* The first chunk of a file. With the digest of the upload under way, or of one that a restart cut, it goes on where that stands. */
static ek_status begin(ek_files *f, const ek_cbor *request, const ek_path *name, ek_error *error) {
    uint64_t length;
    uint8_t digest[32];
    bool has_digest = read_digest(request, digest);
    if (ek_read_uint(request, "len", true, SIZE_MAX, &length, error) != EK_OK)
        return refuse(error, FS_BAD_OFFSET);
    bool same = f->name.text[0] && strcmp(f->name.text, name->text) == 0 && f->length == length && has_digest && f->has_digest &&
                memcmp(digest, f->digest, sizeof digest) == 0;
    if (same)
        return EK_OK;
    give_up(f);
    if ((has_digest && f->platform->receive ? f->platform->receive(&f->file, name->text, length, digest, error)
                                            : f->platform->create(&f->file, name->text, length, error)) != EK_OK)
        return refuse(error, error->status == EK_IO ? FS_WRITE_FAILED : FS_OPEN_FAILED);
    f->name = *name;
    f->length = length;
    f->has_digest = has_digest;
    memcpy(f->digest, digest, sizeof digest);
    return EK_OK;
}

static ek_status finish(ek_files *f, ek_error *error) {
    f->name.text[0] = 0;
    return f->platform->commit(&f->file, error) == EK_OK ? EK_OK : refuse(error, FS_WRITE_FAILED);
}

/* A chunk that does not begin where the file ends is not taken; the answer says what is wanted. */
static ek_status upload(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_files *f = context;
    ek_path name;
    uint64_t offset;
    ek_cbor value;
    const uint8_t *bytes;
    size_t size;
    if (read_name(request, &name, error) != EK_OK)
        return error->status;
    if (ek_read_uint(request, "off", true, UINT64_MAX, &offset, error) != EK_OK || !ek_cbor_find(request, "data", &value) ||
        !ek_cbor_bytes(&value, &bytes, &size))
        return refuse(error, FS_BAD_OFFSET);
    if (offset == 0 && ek_cbor_find(request, "len", &value) && begin(f, request, &name, error) != EK_OK)
        return error->status;
    if (!f->name.text[0] || strcmp(f->name.text, name.text) != 0)
        return refuse(error, FS_BAD_OFFSET);
    if (offset == f->file.have && size <= f->length - f->file.have && f->platform->write(&f->file, bytes, size, error) != EK_OK) {
        give_up(f);
        return refuse(error, FS_WRITE_FAILED);
    }
    write_offset(to, f->file.have);
    return f->file.have == f->length ? finish(f, error) : EK_OK;
}

/* ---- download, status, hash ---- */

static ek_status open_file(ek_files *f, const ek_cbor *request, ek_file *file, ek_error *error) {
    ek_path name;
    if (read_name(request, &name, error) != EK_OK)
        return error->status;
    return f->platform->map(name.text, file, error) == EK_OK ? EK_OK : refuse(error, FS_NOT_FOUND);
}

static ek_status download(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    enum { REST = 48 }; /* bytes of the keys and numbers */
    ek_files *f = context;
    uint64_t offset;
    ek_file file;
    if (ek_read_uint(request, "off", true, UINT64_MAX, &offset, error) != EK_OK)
        return refuse(error, FS_BAD_OFFSET);
    if (open_file(f, request, &file, error) != EK_OK)
        return error->status;
    if (offset > file.size) {
        f->platform->unmap(&file);
        return refuse(error, FS_BAD_OFFSET);
    }
    size_t left = file.size - (size_t)offset, room = (size_t)(to->end - to->at) - REST;
    ek_cbor_write_map(to, offset ? 2 : 3);
    ek_put_uint(to, "off", offset);
    ek_cbor_write_text(to, "data");
    ek_cbor_write_bytes(to, file.bytes + offset, left < room ? left : room);
    if (offset == 0)
        ek_put_uint(to, "len", file.size);
    f->platform->unmap(&file);
    return EK_OK;
}

static ek_status status(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_files *f = context;
    ek_file file;
    if (open_file(f, request, &file, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 1);
    ek_put_uint(to, "len", file.size);
    f->platform->unmap(&file);
    return EK_OK;
}

static ek_status hash(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_files *f = context;
    ek_file file;
    ek_path type;
    if (ek_read_path(request, "type", false, &type, error) != EK_OK)
        return refuse(error, FS_NO_HASH);
    bool sha = strcmp(type.text, "sha256") == 0;
    if (type.text[0] && !sha && strcmp(type.text, "crc32") != 0)
        return refuse(error, FS_NO_HASH);
    if (open_file(f, request, &file, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 3);
    ek_put_text(to, "type", sha ? "sha256" : "crc32");
    ek_put_uint(to, "len", file.size);
    ek_cbor_write_text(to, "output");
    if (sha) {
        uint8_t digest[32];
        ek_sha256_of(file.bytes, file.size, digest);
        ek_cbor_write_bytes(to, digest, sizeof digest);
    } else {
        ek_cbor_write_uint(to, ek_crc32(file.bytes, file.size));
    }
    f->platform->unmap(&file);
    return EK_OK;
}

static ek_status close_files(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    (void)request, (void)error;
    give_up(context);
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

const ek_smp_command ek_file_commands[] = {
    {FILE_DATA, EK_SMP_READ, download},
    {FILE_DATA, EK_SMP_WRITE, upload},
    {FILE_STATUS, EK_SMP_READ, status},
    {FILE_HASH, EK_SMP_READ, hash},
    {FILE_CLOSE, EK_SMP_WRITE, close_files},
    {0, 0, NULL},
};
