#include "dataset.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../core/mix.h"

/* Elements are taken one by one with memcpy: numpy aligns the data, but nothing promises it. */
#define ELEMENT(type, from, i) \
    ({ \
        type e_; \
        memcpy(&e_, (from) + (i) * sizeof(type), sizeof(type)); \
        e_; \
    })

static int64_t integer_at(const ek_npy *array, uint64_t i) {
    switch (array->type) {
    case EK_NPY_U1:
        return array->data[i];
    case EK_NPY_I1:
        return (int8_t)array->data[i];
    case EK_NPY_I2:
        return ELEMENT(int16_t, array->data, i);
    case EK_NPY_I4:
        return ELEMENT(int32_t, array->data, i);
    default:
        return ELEMENT(int64_t, array->data, i);
    }
}

/* Every element of an i32 port's file. Where low = high only the width is checked. */
static ek_status check_labels(const ek_source *s, uint64_t samples, ek_error *error) {
    int64_t low = s->port->low, high = (int64_t)s->port->high - 1, ignore = s->port->ignore;
    if (s->port->low == s->port->high) {
        low = INT32_MIN;
        high = INT32_MAX;
        ignore = 0;
    }
    for (uint64_t i = 0; i < samples * s->sample_items; i++) {
        int64_t x = integer_at(&s->array, i);
        if ((x < low || x > high) && x != ignore)
            return ek_fail(error, EK_BAD_LABEL, "%s: sample %" PRIu64 " has %" PRId64 ", expected %" PRId64 " to %" PRId64 "%s",
                           s->name, i / s->sample_items, x, low, high, ignore < low || ignore > high ? " or the ignored value" : "");
    }
    return EK_OK;
}

/* "[8, 28, 28]" of the axes after the sample axis, "any" first. */
static void describe_npy(char *to, size_t room, const ek_npy *array) {
    int n = snprintf(to, room, "%s[", ek_npy_type_name(array->type));
    for (uint32_t i = 0; i < array->rank && n < (int)room; i++)
        n += snprintf(to + n, room - (size_t)n, "%s%" PRIu64, i ? ", " : "", array->dim[i]);
    if (n < (int)room)
        snprintf(to + n, room - (size_t)n, "]");
}

static void describe_tensor(char *to, size_t room, const ek_tensor *tensor) {
    const char *type = tensor->dtype == EK_F32 ? "f4, f8 or u1" : tensor->dtype == EK_I32 ? "i8, i4, i2, u1 or i1" : tensor->dtype == EK_I8 ? "i1" : "u1";
    int n = snprintf(to, room, "%s [samples", type);
    for (uint32_t i = 1; i < tensor->rank && n < (int)room; i++)
        n += snprintf(to + n, room - (size_t)n, ", %" PRIu32, tensor->dim[i]);
    if (n < (int)room)
        snprintf(to + n, room - (size_t)n, "]");
}

static bool converts(ek_npy_type from, uint8_t to) {
    bool is_float = from == EK_NPY_F4 || from == EK_NPY_F8;
    if (to == EK_F32)
        return is_float || from == EK_NPY_U1;
    return to == EK_I32 ? !is_float : from == (to == EK_I8 ? EK_NPY_I1 : EK_NPY_U1);
}

static ek_status check_shape(const ek_source *s, ek_error *error) {
    const ek_npy *a = &s->array;
    const ek_tensor *t = s->tensor;
    bool fits = a->rank == t->rank && a->rank >= 1 && converts(a->type, t->dtype);
    for (uint32_t i = 1; fits && i < a->rank; i++)
        fits = a->dim[i] == t->dim[i];
    if (fits)
        return EK_OK;
    char expected[80], found[80];
    describe_tensor(expected, sizeof expected, t);
    describe_npy(found, sizeof found, a);
    return ek_fail(error, EK_BAD_DATA, "%s: expected %s, found %s", s->name, expected, found);
}

static void source_name(char *to, size_t room, const ek_port *port) {
    if (port->role == EK_PORT_TARGET)
        snprintf(to, room, "targets.npy");
    else if (port->index == 0)
        snprintf(to, room, "inputs.npy");
    else
        snprintf(to, room, "inputs_%u.npy", port->index);
}

/* Put the file's name before a text that lacks it. */
static ek_status name_it(ek_error *error, const char *name) {
    char text[sizeof error->text];
    memcpy(text, error->text, sizeof text);
    return ek_fail(error, error->status, "%s %.200s", name, text);
}

ek_status ek_dataset_bind(ek_dataset *data, const ek_platform *platform, const ek_program *program, const ek_entry *entry,
                          ek_error *error) {
    memset(data, 0, sizeof *data);
    data->platform = platform;
    data->batch = program->header->batch;
    for (uint32_t i = 0; i < entry->ports; i++) {
        const ek_port *port = &program->ports[entry->first_port + i];
        if (port->role != EK_PORT_INPUT && port->role != EK_PORT_TARGET)
            continue;
        if (data->count == EK_MAX_SOURCES)
            return ek_fail(error, EK_BAD_PROGRAM, "more than %d inputs", EK_MAX_SOURCES);
        ek_source *s = &data->sources[data->count++];
        s->port = port;
        s->tensor = &program->tensors[port->tensor];
        s->sample_items = 1;
        for (uint32_t axis = 1; axis < s->tensor->rank; axis++)
            s->sample_items *= s->tensor->dim[axis];
        source_name(s->name, sizeof s->name, port);
    }
    return data->count ? EK_OK : ek_fail(error, EK_BAD_PROGRAM, "the entry has no input");
}

static ek_status show_source(ek_dataset *data, ek_source *s, const ek_file *file, ek_error *error) {
    if (ek_npy_open(&s->array, file->bytes, file->size, error) != EK_OK)
        return name_it(error, s->name);
    if (check_shape(s, error) != EK_OK)
        return error->status;
    uint64_t samples = s->array.dim[0];
    if (samples > INT32_MAX)
        return ek_fail(error, EK_BAD_DATA, "%s: %" PRIu64 " samples are more than 2^31 - 1", s->name, samples);
    if (s != data->sources && samples != data->samples)
        return ek_fail(error, EK_BAD_DATA, "%s has %" PRIu64 " samples, %s has %" PRIu32, s->name, samples,
                       data->sources[0].name, data->samples);
    data->samples = (uint32_t)samples;
    return s->tensor->dtype == EK_I32 ? check_labels(s, samples, error) : EK_OK;
}

ek_status ek_dataset_show(ek_dataset *data, const ek_file *parts, ek_error *error) {
    for (uint32_t i = 0; i < data->count; i++)
        if (show_source(data, &data->sources[i], &parts[i], error) != EK_OK)
            return error->status;
    return EK_OK;
}

static ek_status open_source(ek_dataset *data, ek_source *s, const char *folder, ek_error *error) {
    char path[EK_PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", folder, s->name) >= (int)sizeof path)
        return ek_fail(error, EK_BAD_REQUEST, "the path of %s is longer than %d bytes", s->name, EK_PATH_BYTES - 1);
    if (data->platform->map(path, &s->file, error) != EK_OK)
        return error->status;
    return show_source(data, s, &s->file, error);
}

ek_status ek_dataset_open(ek_dataset *data, const char *folder, ek_error *error) {
    for (uint32_t i = 0; i < data->count; i++)
        if (open_source(data, &data->sources[i], folder, error) != EK_OK) {
            ek_dataset_close(data);
            return error->status;
        }
    return EK_OK;
}

void ek_dataset_close(ek_dataset *data) {
    for (uint32_t i = 0; i < data->count; i++)
        data->platform->unmap(&data->sources[i].file);
    data->count = 0;
}

/* Convert one sample to f32; false where an element is NaN or infinite after it (an f8 may overflow). */
static bool fill_f32(float *to, const ek_npy *a, uint64_t first, size_t items) {
    const uint8_t *from = a->data + first * a->item_bytes;
    if (a->type == EK_NPY_U1) {
        for (size_t i = 0; i < items; i++)
            to[i] = from[i];
        return true;
    }
    if (a->type == EK_NPY_F4)
        memcpy(to, from, items * sizeof *to);
    else
        for (size_t i = 0; i < items; i++)
            to[i] = (float)ELEMENT(double, from, i);
    uint32_t bad = 0; /* on the bits, so that no compiler flag about finite math can remove it */
    for (size_t i = 0; i < items; i++)
        bad |= (ELEMENT(uint32_t, (const uint8_t *)to, i) & 0x7F800000u) == 0x7F800000u;
    return !bad;
}

static bool fill_sample(const ek_source *s, void *to, uint32_t slot, uint32_t sample) {
    size_t items = s->sample_items;
    uint64_t first = (uint64_t)sample * items;
    if (s->tensor->dtype == EK_F32)
        return fill_f32((float *)to + slot * items, &s->array, first, items);
    if (s->tensor->dtype == EK_U8 || s->tensor->dtype == EK_I8) {
        memcpy((uint8_t *)to + slot * items, s->array.data + first, items);
        return true;
    }
    for (size_t i = 0; i < items; i++)
        ((int32_t *)to)[slot * items + i] = (int32_t)integer_at(&s->array, first + i);
    return true;
}

ek_status ek_dataset_fill(const ek_dataset *data, const ek_executor *executor, const uint32_t *pick, ek_error *error) {
    for (uint32_t i = 0; i < data->count; i++) {
        const ek_source *s = &data->sources[i];
        void *to = ek_executor_data(executor, s->port->tensor);
        for (uint32_t slot = 0; slot < data->batch; slot++)
            if (!fill_sample(s, to, slot, pick[slot]))
                return ek_fail(error, EK_NOT_FINITE, "%s: sample %" PRIu32 " holds NaN or infinity", s->name, pick[slot]);
    }
    return EK_OK;
}

void ek_shuffle(uint32_t *order, uint32_t count, uint32_t seed, uint32_t epoch) {
    const uint64_t g = 0x9E3779B97F4A7C15u;
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    uint64_t k = ek_mix(((uint64_t)seed << 32 | epoch) + g);
    for (uint32_t i = count; i-- > 1;) {
        k += g;
        uint64_t r = ek_mix(k) >> 32;
        uint32_t j = (uint32_t)(r * (i + 1) >> 32), held = order[i];
        order[i] = order[j];
        order[j] = held;
    }
}
