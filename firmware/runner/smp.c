#include "smp.h"

#include <string.h>

enum { VERSION_2 = 1, OS_GROUP = 0, USER_GROUPS = 64, ECHO = 0, RESET = 5, PARAMETERS = 6 };

ek_smp_header ek_smp_header_read(const uint8_t *b) {
    return (ek_smp_header){
        .op = b[0] & 7,
        .version = b[0] >> 3 & 3,
        .length = (uint16_t)(b[2] << 8 | b[3]),
        .group = (uint16_t)(b[4] << 8 | b[5]),
        .sequence = b[6],
        .command = b[7],
    };
}

/* A request's header turned into its response's. Returns the response's bytes. */
static size_t finish(const ek_smp_header *request, const ek_cbor_writer *body, uint8_t *response) {
    size_t length = (size_t)(body->at - response) - EK_SMP_HEADER;
    const uint8_t header[EK_SMP_HEADER] = {
        (uint8_t)(VERSION_2 << 3 | ((request->op & 3) | 1)), 0, (uint8_t)(length >> 8), (uint8_t)length,
        (uint8_t)(request->group >> 8), (uint8_t)request->group, request->sequence, request->command,
    };
    memcpy(response, header, sizeof header);
    return EK_SMP_HEADER + length;
}

static ek_cbor_writer body_of(const ek_smp_server *server, uint8_t *response) {
    return (ek_cbor_writer){response + EK_SMP_HEADER, response + server->buffer_bytes, false};
}

/* {"err": {"group": G, "rc": N}, "why": text}. Standard groups have no "why": their clients take mcumgr's map only. */
static void write_error(ek_cbor_writer *to, unsigned group, int rc, const char *why) {
    ek_cbor_write_map(to, why ? 2 : 1);
    ek_cbor_write_text(to, "err");
    ek_cbor_write_map(to, 2);
    ek_cbor_write_text(to, "group");
    ek_cbor_write_uint(to, group);
    ek_cbor_write_text(to, "rc");
    ek_cbor_write_uint(to, (uint64_t)rc);
    if (why) {
        ek_cbor_write_text(to, "why");
        ek_cbor_write_text(to, why);
    }
}

size_t ek_smp_refuse(const ek_smp_server *server, const uint8_t *header, int code, uint8_t *response) {
    ek_smp_header h = ek_smp_header_read(header);
    ek_cbor_writer body = body_of(server, response);
    write_error(&body, OS_GROUP, code, NULL);
    return finish(&h, &body, response);
}

static bool echo(const ek_cbor *request, ek_cbor_writer *response) {
    ek_cbor value;
    const char *text;
    size_t length;
    if (!ek_cbor_find(request, "d", &value) || !ek_cbor_text(&value, &text, &length))
        return false;
    ek_cbor_write_map(response, 1);
    ek_cbor_write_text(response, "r");
    ek_cbor_write_text_n(response, text, length);
    return true;
}

static void parameters(const ek_smp_server *server, ek_cbor_writer *response) {
    ek_cbor_write_map(response, 2);
    ek_cbor_write_text(response, "buf_size");
    ek_cbor_write_uint(response, server->buffer_bytes);
    ek_cbor_write_text(response, "buf_count");
    ek_cbor_write_uint(response, 1);
}

static int reset(const ek_smp_server *server, const ek_cbor *request, ek_cbor_writer *response) {
    ek_cbor value;
    uint64_t force = 0;
    if (ek_cbor_find(request, "force", &value) && !ek_cbor_uint(&value, &force))
        return EK_MGMT_INVALID;
    if (!server->reset(server->reset_context, force != 0))
        return EK_MGMT_BUSY;
    ek_cbor_write_map(response, 0);
    return 0;
}

/* mcumgr's code, 0 for success. */
static int handle_os(const ek_smp_server *server, const ek_smp_header *h, const ek_cbor *map, ek_cbor_writer *response) {
    if (h->command == ECHO && h->op == EK_SMP_WRITE)
        return echo(map, response) ? 0 : EK_MGMT_INVALID;
    if (h->command == RESET && h->op == EK_SMP_WRITE && server->reset)
        return reset(server, map, response);
    if (h->command == PARAMETERS && h->op == EK_SMP_READ) {
        parameters(server, response);
        return 0;
    }
    return EK_MGMT_NOT_SUPPORTED;
}

static const ek_smp_group *find_group(const ek_smp_server *server, uint16_t id) {
    for (size_t i = 0; i < server->count; i++)
        if (server->groups[i].id == id)
            return &server->groups[i];
    return NULL;
}

static ek_smp_handler *find_handler(const ek_smp_group *group, const ek_smp_header *h) {
    for (const ek_smp_command *c = group->commands; c->handle; c++)
        if (c->command == h->command && c->op == h->op)
            return c->handle;
    return NULL;
}

size_t ek_smp_handle(const ek_smp_server *server, const uint8_t *request, size_t size, uint8_t *response) {
    ek_smp_header h = ek_smp_header_read(request);
    if (h.version != VERSION_2 || (h.op != EK_SMP_READ && h.op != EK_SMP_WRITE))
        return ek_smp_refuse(server, request, EK_MGMT_NOT_SUPPORTED, response);
    ek_cbor map;
    if (h.length != size - EK_SMP_HEADER || !ek_cbor_open(&map, request + EK_SMP_HEADER, h.length))
        return ek_smp_refuse(server, request, EK_MGMT_INVALID, response);

    ek_cbor_writer body = body_of(server, response);
    if (h.group == OS_GROUP) {
        int code = handle_os(server, &h, &map, &body);
        if (!code && body.overflow)
            code = EK_MGMT_TOO_LARGE;
        return code ? ek_smp_refuse(server, request, code, response) : finish(&h, &body, response);
    }
    const ek_smp_group *group = find_group(server, h.group);
    ek_smp_handler *handle = group ? find_handler(group, &h) : NULL;
    if (!handle)
        return ek_smp_refuse(server, request, EK_MGMT_NOT_SUPPORTED, response);
    ek_error error = {EK_OK, ""};
    ek_status status = handle(group->context, &map, &body, &error);
    if (status != EK_OK) {
        body = body_of(server, response);
        write_error(&body, h.group, (int)status, h.group < USER_GROUPS ? NULL : error.text);
    }
    if (body.overflow)
        return ek_smp_refuse(server, request, EK_MGMT_TOO_LARGE, response);
    return finish(&h, &body, response);
}
