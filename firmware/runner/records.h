/* The last training steps, in a ring that the host reads by cursor: each record once, however often the link breaks. */
#ifndef EK_RECORDS_H
#define EK_RECORDS_H

#include "cbor.h"
#include "platform.h"

#ifndef EK_RECORDS
#define EK_RECORDS 4096
#endif
enum { EK_RECORD_CBOR = 128 }; /* most bytes of one record as CBOR */

typedef struct {
    uint64_t step, step_ns, load_ns, compute_ns, update_ns, time_ns;
    uint32_t epoch;
    float loss;
    ek_readings readings;
} ek_record;

typedef struct {
    ek_record ring[EK_RECORDS];
    uint64_t next; /* cursor of the next record; counts from the runner's start */
} ek_records;

void ek_records_add(ek_records *records, const ek_record *record);

/* Cursor of the oldest record still there that is not before `since`. */
uint64_t ek_records_first(const ek_records *records, uint64_t since);

/* The record of a cursor that is still there. */
const ek_record *ek_records_at(const ek_records *records, uint64_t cursor);

/* The record's array (docs/protocol.md). */
void ek_record_write(const ek_record *record, uint64_t cursor, ek_cbor_writer *to);

#endif
