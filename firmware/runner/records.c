#include "records.h"

void ek_records_add(ek_records *records, const ek_record *record) {
    records->ring[records->next % EK_RECORDS] = *record;
    records->next++;
}

uint64_t ek_records_first(const ek_records *records, uint64_t since) {
    uint64_t oldest = records->next < EK_RECORDS ? 0 : records->next - EK_RECORDS;
    if (since > records->next)
        return records->next;
    return since < oldest ? oldest : since;
}

const ek_record *ek_records_at(const ek_records *records, uint64_t cursor) { return &records->ring[cursor % EK_RECORDS]; }

void ek_record_write(const ek_record *r, uint64_t cursor, ek_cbor_writer *to) {
    ek_cbor_write_array(to, 14);
    ek_cbor_write_uint(to, cursor);
    ek_cbor_write_uint(to, r->step);
    ek_cbor_write_uint(to, r->epoch);
    ek_cbor_write_f32(to, r->loss);
    ek_cbor_write_uint(to, r->step_ns);
    ek_cbor_write_uint(to, r->load_ns);
    ek_cbor_write_uint(to, r->compute_ns);
    ek_cbor_write_uint(to, r->update_ns);
    ek_cbor_write_uint(to, r->time_ns);
    for (int i = 0; i < EK_SENSORS; i++)
        if (r->readings.known[i])
            ek_cbor_write_int(to, r->readings.value[i]);
        else
            ek_cbor_write_null(to);
    if (r->readings.rss_known)
        ek_cbor_write_uint(to, r->readings.rss_bytes);
    else
        ek_cbor_write_null(to);
}
