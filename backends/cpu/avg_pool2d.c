/* Average pooling in NHWC, over sliding windows and over adaptive bins, and the gradients.
 *
 * Both are a mean over a rectangle of each result; they differ in where the rectangles lie. The gradient gathers: the
 * rectangles that cover an input position are themselves a rectangle of results. */
#include "parallel.h"
#include "tails.h"

enum { WIDE = 4, CHUNK = WIDE * EK_LANES };

/* Half-open. */
typedef struct {
    int64_t begin, end;
} interval;

/* The windows or bins of one axis. Adaptive where stride is 0. */
typedef struct {
    int64_t size, outputs, kernel, stride, padding;
} axis;

typedef struct {
    const float *from;
    float *to;
    size_t images, channels;
    axis vertical, horizontal;
    int count_padding;
} pooling;

EK_INLINE interval clip(interval i, int64_t size) {
    if (i.begin < 0) i.begin = 0;
    if (i.end > size) i.end = size;
    if (i.end < i.begin) i.end = i.begin;
    return i;
}

/* The input positions of a result. */
EK_INLINE interval inputs_of(axis a, int64_t output) {
    if (!a.stride) return (interval){output * a.size / a.outputs, ((output + 1) * a.size + a.outputs - 1) / a.outputs};
    int64_t begin = output * a.stride - a.padding;
    return clip((interval){begin, begin + a.kernel}, a.size);
}

/* The results that an input position is part of. */
EK_INLINE interval outputs_of(axis a, int64_t position) {
    if (!a.stride) return (interval){position * a.outputs / a.size, ((position + 1) * a.outputs + a.size - 1) / a.size};
    int64_t last = position + a.padding, first = last - a.kernel + 1;
    return clip((interval){first <= 0 ? 0 : (first + a.stride - 1) / a.stride, last / a.stride + 1}, a.outputs);
}

EK_INLINE float share_of(const pooling *p, interval rows, interval columns) {
    if (p->count_padding) return 1.0f / (float)(p->vertical.kernel * p->horizontal.kernel);
    return 1.0f / (float)((rows.end - rows.begin) * (columns.end - columns.begin));
}

/* The mean of n (at most CHUNK) channels over a rectangle of an image, summed row by row, so that rounding errors grow
 * with its height and its width, not with its area. */
EK_INLINE void average(const pooling *p, const float *image, interval rows, interval columns, ptrdiff_t n, float *to) {
    ek_vf total[WIDE] = {{0}};
    for (int64_t y = rows.begin; y < rows.end; y++) {
        ek_vf sum[WIDE] = {{0}};
        const float *x = image + (size_t)(y * p->horizontal.size + columns.begin) * p->channels;
        for (int64_t i = columns.begin; i < columns.end; i++, x += p->channels)
            for (int k = 0; k < WIDE; k++) sum[k] += ek_load_n(x + k * EK_LANES, n - k * EK_LANES);
        for (int k = 0; k < WIDE; k++) total[k] += sum[k];
    }
    float share = share_of(p, rows, columns);
    for (int k = 0; k < WIDE; k++) ek_store_n(to + k * EK_LANES, total[k] * share, n - k * EK_LANES);
}

static void average_part(void *context, int index, int count) {
    const pooling *p = context;
    size_t width = (size_t)p->horizontal.outputs, height = (size_t)p->vertical.outputs;
    size_t chunks = (p->channels + CHUNK - 1) / CHUNK;
    size_t image_size = (size_t)(p->vertical.size * p->horizontal.size) * p->channels;
    ek_range r = ek_share(p->images * height * width * chunks, 1, index, count);
    for (size_t u = r.begin; u < r.end; u++) {
        size_t pixel = u / chunks, c = u % chunks * CHUNK, left = p->channels - c;
        interval rows = inputs_of(p->vertical, (int64_t)(pixel / width % height));
        interval columns = inputs_of(p->horizontal, (int64_t)(pixel % width));
        const float *image = p->from + pixel / (width * height) * image_size + c;
        float *to = p->to + pixel * p->channels + c;
        if (left >= CHUNK) average(p, image, rows, columns, CHUNK, to);
        else average(p, image, rows, columns, (ptrdiff_t)left, to);
    }
}

/* The gradient of n channels at an input position. */
EK_INLINE void gather(const pooling *p, const float *image, interval rows, interval columns, ptrdiff_t n, float *to) {
    ek_vf total[WIDE] = {{0}};
    for (int64_t y = rows.begin; y < rows.end; y++) {
        interval covered = inputs_of(p->vertical, y);
        for (int64_t x = columns.begin; x < columns.end; x++) {
            float share = share_of(p, covered, inputs_of(p->horizontal, x));
            const float *dy = image + (size_t)(y * p->horizontal.outputs + x) * p->channels;
            for (int k = 0; k < WIDE; k++) total[k] += ek_load_n(dy + k * EK_LANES, n - k * EK_LANES) * share;
        }
    }
    for (int k = 0; k < WIDE; k++) ek_store_n(to + k * EK_LANES, total[k], n - k * EK_LANES);
}

static void gather_part(void *context, int index, int count) {
    const pooling *p = context;
    size_t width = (size_t)p->horizontal.size, height = (size_t)p->vertical.size;
    size_t image_size = (size_t)(p->vertical.outputs * p->horizontal.outputs) * p->channels;
    ek_range r = ek_share(p->images * height, 1, index, count);
    for (size_t row = r.begin; row < r.end; row++) {
        interval rows = outputs_of(p->vertical, (int64_t)(row % height));
        const float *image = p->from + row / height * image_size;
        for (size_t x = 0; x < width; x++) {
            interval columns = outputs_of(p->horizontal, (int64_t)x);
            float *to = p->to + (row * width + x) * p->channels;
            for (size_t c = 0; c < p->channels; c += CHUNK) {
                size_t left = p->channels - c;
                if (left >= CHUNK) gather(p, image + c, rows, columns, CHUNK, to + c);
                else gather(p, image + c, rows, columns, (ptrdiff_t)left, to + c);
            }
        }
    }
}

static pooling pooling_of(const ek_call *call, const ek_tensor *large, const ek_tensor *small) {
    pooling p = {.from = call->in[0], .to = call->out[0], .images = large->dim[0], .channels = large->dim[3]};
    p.vertical = (axis){.size = large->dim[1], .outputs = small->dim[1]};
    p.horizontal = (axis){.size = large->dim[2], .outputs = small->dim[2]};
    return p;
}

static void set_window(pooling *p, const int32_t *kernel, const int32_t *stride, const int32_t *padding,
                       int32_t count_padding) {
    p->vertical.kernel = kernel[0], p->vertical.stride = stride[0], p->vertical.padding = padding[0];
    p->horizontal.kernel = kernel[1], p->horizontal.stride = stride[1], p->horizontal.padding = padding[2];
    p->count_padding = count_padding;
}

static void avg_pool(const ek_call *call) {
    const ek_avg_pool2d_attrs *a = call->attrs;
    pooling p = pooling_of(call, call->in_t[0], call->out_t[0]);
    set_window(&p, a->kernel, a->stride, a->padding, a->count_padding);
    size_t taps = (size_t)a->kernel[0] * (size_t)a->kernel[1];
    ek_parallel(call->pool, ek_elements(call->out_t[0]) * taps, average_part, &p);
}

static void avg_pool_grad(const ek_call *call) {
    const ek_avg_pool2d_grad_attrs *a = call->attrs;
    pooling p = pooling_of(call, call->out_t[0], call->in_t[0]);
    set_window(&p, a->kernel, a->stride, a->padding, a->count_padding);
    ek_parallel(call->pool, ek_elements(call->out_t[0]), gather_part, &p);
}

static void adaptive_avg_pool(const ek_call *call) {
    pooling p = pooling_of(call, call->in_t[0], call->out_t[0]);
    ek_parallel(call->pool, ek_elements(call->in_t[0]), average_part, &p);
}

static void adaptive_avg_pool_grad(const ek_call *call) {
    pooling p = pooling_of(call, call->out_t[0], call->in_t[0]);
    ek_parallel(call->pool, ek_elements(call->out_t[0]), gather_part, &p);
}

const ek_kernel EK_NAME(ek_kernel_avg_pool2d) = {.run = avg_pool};
const ek_kernel EK_NAME(ek_kernel_avg_pool2d_grad) = {.run = avg_pool_grad};
const ek_kernel EK_NAME(ek_kernel_adaptive_avg_pool2d) = {.run = adaptive_avg_pool};
const ek_kernel EK_NAME(ek_kernel_adaptive_avg_pool2d_grad) = {.run = adaptive_avg_pool_grad};
