/* Max pooling in NHWC and its gradient. Channels are the vectors' lanes. */
#include <math.h>

#include "parallel.h"
#include "tails.h"

typedef uint8_t lane_bytes __attribute__((vector_size(EK_LANES)));

typedef struct {
    const ek_call *call;
    const int32_t *kernel, *stride, *padding, *dilation;
    int32_t h, w, oh, ow, c; /* the larger side (x, dx), the smaller side (y, dy), channels */
} pooling;

EK_INLINE ek_vi load_bytes(const uint8_t *p, int n) {
    lane_bytes b = {0};
    if (n >= EK_LANES) memcpy(&b, p, EK_LANES);
    else memcpy(&b, p, (size_t)n);
    return __builtin_convertvector(b, ek_vi);
}

EK_INLINE void store_bytes(uint8_t *p, ek_vi v, int n) {
    lane_bytes b = __builtin_convertvector(v, lane_bytes);
    if (n >= EK_LANES) memcpy(p, &b, EK_LANES);
    else memcpy(p, &b, (size_t)n);
}

/* The taps k with 0 <= from + k * step < size are first … end - 1. */
typedef struct {
    int32_t first, end;
} tap_range;

EK_INLINE tap_range taps_inside(int64_t from, int32_t step, int32_t size, int32_t taps) {
    int64_t first = from < 0 ? (-from + step - 1) / step : 0;
    int64_t end = from >= size ? 0 : (size - from + step - 1) / step;
    if (end > taps) end = taps;
    if (first >= end) first = end = 0;
    return (tap_range){(int32_t)first, (int32_t)end};
}

/* One window on an image: its taps inside, and where they lie, in elements. Tap (0, 0) may lie outside. */
typedef struct {
    tap_range rows, columns;
    int64_t corner, row_step, column_step;
    int32_t width; /* of the kernel: tap (i, j) has place i * width + j */
} window;

EK_INLINE void max_of_window(const float *image, window w, int n, float *y, uint8_t *places) {
    ek_vf best = ek_splat(-INFINITY);
    ek_vi place = (ek_vi){0} + (w.rows.end && w.columns.end ? w.rows.first * w.width + w.columns.first : 0);
    for (int32_t i = w.rows.first; i < w.rows.end; i++) {
        for (int32_t j = w.columns.first; j < w.columns.end; j++) {
            ek_vf v = ek_load_n(image + w.corner + i * w.row_step + j * w.column_step, n);
            ek_vi wins = (v > best) | ((v != v) & (best == best)); /* the first NaN wins */
            best = ek_select(wins, v, best);
            place = (wins & (i * w.width + j)) | (~wins & place);
        }
    }
    ek_store_n(y, best, n);
    if (places) store_bytes(places, place, n);
}

static void max_pool_part(void *context, int index, int count) {
    const pooling *p = context;
    const float *x = p->call->in[EK_MAX_POOL2D_X];
    float *y = p->call->out[EK_MAX_POOL2D_Y];
    uint8_t *places = p->call->out[EK_MAX_POOL2D_INDEX];
    ek_range r = ek_share((size_t)p->call->out_t[EK_MAX_POOL2D_Y]->dim[0] * (size_t)p->oh, 1, index, count);
    window w = {.width = p->kernel[1], .column_step = (int64_t)p->dilation[1] * p->c};
    w.row_step = (int64_t)p->dilation[0] * p->w * p->c;
    for (size_t row = r.begin; row < r.end; row++) {
        const float *image = x + row / (size_t)p->oh * (size_t)p->h * (size_t)p->w * (size_t)p->c;
        int64_t top = (int64_t)(row % (size_t)p->oh) * p->stride[0] - p->padding[0];
        w.rows = taps_inside(top, p->dilation[0], p->h, p->kernel[0]);
        for (int32_t column = 0; column < p->ow; column++) {
            int64_t left = (int64_t)column * p->stride[1] - p->padding[2];
            size_t at = (row * (size_t)p->ow + (size_t)column) * (size_t)p->c;
            w.columns = taps_inside(left, p->dilation[1], p->w, p->kernel[1]);
            for (int32_t c = 0; c < p->c; c += EK_LANES, at += EK_LANES) {
                w.corner = (top * p->w + left) * p->c + c;
                if (p->c - c >= EK_LANES) max_of_window(image, w, EK_LANES, y + at, places ? places + at : NULL);
                else max_of_window(image, w, p->c - c, y + at, places ? places + at : NULL);
            }
        }
    }
}

static pooling pooling_of(const ek_call *call, const ek_tensor *large, const ek_tensor *small) {
    pooling p = {.call = call};
    p.h = (int32_t)large->dim[1], p.w = (int32_t)large->dim[2], p.c = (int32_t)large->dim[3];
    p.oh = (int32_t)small->dim[1], p.ow = (int32_t)small->dim[2];
    return p;
}

static void max_pool(const ek_call *call) {
    const ek_max_pool2d_attrs *a = call->attrs;
    pooling p = pooling_of(call, call->in_t[EK_MAX_POOL2D_X], call->out_t[EK_MAX_POOL2D_Y]);
    p.kernel = a->kernel, p.stride = a->stride, p.padding = a->padding, p.dilation = a->dilation;
    size_t taps = (size_t)p.kernel[0] * (size_t)p.kernel[1];
    ek_parallel(call->pool, ek_elements(call->out_t[EK_MAX_POOL2D_Y]) * taps, max_pool_part, &p);
}

/* The window whose tap `tap` is this input position, or -1. */
EK_INLINE int32_t window_of(int64_t position, int32_t padding, int32_t tap, int32_t dilation, int32_t stride,
                            int32_t windows) {
    int64_t start = position + padding - (int64_t)tap * dilation;
    if (start < 0 || start % stride) return -1;
    return start / stride < windows ? (int32_t)(start / stride) : -1;
}

/* to += dy where the window's maximum lies at `tap`, of one position's channels. */
EK_INLINE void add_where(const float *dy, const uint8_t *places, int32_t tap, int32_t channels, float *to) {
    for (int32_t c = 0; c < channels; c += EK_LANES) {
        int n = channels - c;
        ek_vf share = ek_select(load_bytes(places + c, n) == tap, ek_load_n(dy + c, n), (ek_vf){0});
        ek_store_n(to + c, ek_load_n(to + c, n) + share, n);
    }
}

/* Every input position gathers from the windows that cover it and have their maximum there, so threads write apart, and
 * no index, whatever its value, leads out of an array. */
static void max_pool_grad_part(void *context, int index, int count) {
    const pooling *p = context;
    const float *dy = p->call->in[EK_MAX_POOL2D_GRAD_DY];
    const uint8_t *places = p->call->in[EK_MAX_POOL2D_GRAD_INDEX];
    float *dx = p->call->out[EK_MAX_POOL2D_GRAD_DX];
    const size_t channels = (size_t)p->c;
    ek_range r = ek_share((size_t)p->call->out_t[EK_MAX_POOL2D_GRAD_DX]->dim[0] * (size_t)p->h, 1, index, count);
    memset(dx + r.begin * (size_t)p->w * channels, 0, (r.end - r.begin) * (size_t)p->w * channels * sizeof *dx);
    for (size_t row = r.begin; row < r.end; row++) {
        for (int32_t i = 0; i < p->kernel[0]; i++) {
            int64_t y = (int64_t)(row % (size_t)p->h);
            int32_t window_row = window_of(y, p->padding[0], i, p->dilation[0], p->stride[0], p->oh);
            if (window_row < 0) continue;
            size_t first = (row / (size_t)p->h * (size_t)p->oh + (size_t)window_row) * (size_t)p->ow;
            for (int32_t x = 0; x < p->w; x++) {
                for (int32_t j = 0; j < p->kernel[1]; j++) {
                    int32_t column = window_of(x, p->padding[2], j, p->dilation[1], p->stride[1], p->ow);
                    if (column < 0) continue;
                    size_t at = (first + (size_t)column) * channels;
                    float *to = dx + (row * (size_t)p->w + (size_t)x) * channels;
                    add_where(dy + at, places + at, i * p->kernel[1] + j, p->c, to);
                }
            }
        }
    }
}

static void max_pool_grad(const ek_call *call) {
    const ek_max_pool2d_grad_attrs *a = call->attrs;
    pooling p = pooling_of(call, call->out_t[EK_MAX_POOL2D_GRAD_DX], call->in_t[EK_MAX_POOL2D_GRAD_DY]);
    p.kernel = a->kernel, p.stride = a->stride, p.padding = a->padding, p.dilation = a->dilation;
    ek_parallel(call->pool, ek_elements(call->out_t[EK_MAX_POOL2D_GRAD_DX]), max_pool_grad_part, &p);
}

const ek_kernel EK_NAME(ek_kernel_max_pool2d) = {.run = max_pool};
const ek_kernel EK_NAME(ek_kernel_max_pool2d_grad) = {.run = max_pool_grad};
