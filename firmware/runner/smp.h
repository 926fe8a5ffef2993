/* SMP version 2 (docs/protocol.md): header, dispatch by group, command and op, error responses. Knows nothing of the link. */
#ifndef EK_SMP_H
#define EK_SMP_H

#include "../core/status.h"
#include "cbor.h"

enum { EK_SMP_READ = 0, EK_SMP_WRITE = 2 };                                      /* ops; a response's op is one more */
enum { EK_SMP_HEADER = 8, EK_SMP_LEAST_BUFFER = 2048 };                          /* bytes */
enum { EK_MGMT_INVALID = 3, EK_MGMT_TOO_LARGE = 7, EK_MGMT_NOT_SUPPORTED = 8, EK_MGMT_BUSY = 10 }; /* mcumgr's, group 0 */

typedef struct {
    uint8_t op, version;
    uint16_t length, group;
    uint8_t sequence, command;
} ek_smp_header;

/* Answer one request: write a map to `response`, or fill `error` and return its status. */
typedef ek_status ek_smp_handler(void *context, const ek_cbor *request, ek_cbor_writer *response, ek_error *error);

typedef struct {
    uint8_t command, op;
    ek_smp_handler *handle;
} ek_smp_command;

typedef struct {
    uint16_t id;
    const ek_smp_command *commands; /* ends with handle == NULL */
    void *context;
} ek_smp_group;

/* End when the answer is out. False: not now, and not forced. */
typedef bool ek_smp_reset(void *context, bool force);

/* Group 0 (echo, reset, parameters) is built in. */
typedef struct {
    const ek_smp_group *groups;
    size_t count;
    size_t buffer_bytes; /* of a request or a response, header included */
    ek_smp_reset *reset; /* NULL: not supported */
    void *reset_context;
} ek_smp_server;

/* The header at the beginning of a message: EK_SMP_HEADER bytes. */
ek_smp_header ek_smp_header_read(const uint8_t *bytes);

/* Answer the request of `size` bytes (a whole message) into `response` (server->buffer_bytes). Returns the bytes of the
 * response; every request has one. `size` must be at least EK_SMP_HEADER. */
size_t ek_smp_handle(const ek_smp_server *server, const uint8_t *request, size_t size, uint8_t *response);

/* The response to a request of which only the header was kept because it is longer than the buffer. */
size_t ek_smp_refuse(const ek_smp_server *server, const uint8_t *header, int code, uint8_t *response);

#endif
