/* Depthwise convolutions of floats for a processor with 32 scalar float registers and little memory: CHANNELS at a time, whose filter
 * (integers become floats there) or whose gradient lies in a small tile of scratch memory. */
#include "conv.h"

enum { CHANNELS = EK_STEP };

typedef float eight[CHANNELS];

static size_t taps_of(const ek_conv *c) { return (size_t)c->kernel_h * (size_t)c->kernel_w; }

/* What a row, or a column, of results sees of the other image: tap i of `taps` is its row at + i next, and row first + i step of the
 * filter. */
typedef struct {
    int at, next, taps, first, step;
} axis;

size_t EK_NAME(ek_depthwise_scratch)(const ek_conv *c) { return taps_of(c) * sizeof(eight) + (size_t)c->out_w * sizeof(axis); }

/* Rows of dy that dx is written over while they are still read. */
static int span_of(const ek_conv *c) {
    int span = (c->kernel_h - 1) * c->dilation_h + 1;
    return span < c->out_h ? span : c->out_h;
}

size_t EK_NAME(ek_depthwise_input_grad_scratch)(const ek_conv *c) {
    int over = c->stride_h == 1 && c->stride_w == 1 && c->height == c->out_h && c->width == c->out_w;
    size_t aside = over ? (size_t)span_of(c) * (size_t)c->out_w * sizeof(eight) : 0;
    return taps_of(c) * sizeof(eight) + aside + (size_t)c->width * sizeof(axis);
}

size_t EK_NAME(ek_depthwise_weight_grad_scratch)(const ek_conv *c, int threads) {
    (void)threads;
    return EK_NAME(ek_depthwise_scratch)(c);
}

/* Without the taps that are not in 0 … size - 1. */
static axis inside(axis a, int size) {
    while (a.taps && (a.at < 0 || a.at >= size)) a.at += a.next, a.first += a.step, a.taps--;
    while (a.taps && (a.at + (a.taps - 1) * a.next < 0 || a.at + (a.taps - 1) * a.next >= size)) a.taps--;
    return a;
}

static axis forward_row(const ek_conv *g, int h) {
    return inside((axis){h * g->stride_h - g->top, g->dilation_h, g->kernel_h, 0, 1}, g->height);
}
static axis forward_column(const ek_conv *g, int w) {
    return inside((axis){w * g->stride_w - g->left, g->dilation_w, g->kernel_w, 0, 1}, g->width);
}

/* The results that a row, or a column, of pixels went into. */
static axis backward_row(const ek_conv *g, int h) {
    ek_phase p = ek_phase_of(h % g->stride_h, g->kernel_h, g->stride_h, g->top, g->dilation_h);
    return inside((axis){h / g->stride_h + p.offset, p.next, p.count, p.first, p.step}, g->out_h);
}
static axis backward_column(const ek_conv *g, int w) {
    ek_phase p = ek_phase_of(w % g->stride_w, g->kernel_w, g->stride_w, g->left, g->dilation_w);
    return inside((axis){w / g->stride_w + p.offset, p.next, p.count, p.first, p.step}, g->out_w);
}

/* The filter of n channels from c on, tap by tap; zeros past them. */
static void read_filter(const ek_conv *g, ek_real w, int c, int n, eight *to) {
    for (size_t tap = 0; tap < taps_of(g); tap++)
        for (int i = 0; i < CHANNELS; i++) {
            size_t at = tap * (size_t)g->channels + (size_t)(c + i);
            to[tap][i] = i >= n ? 0.0f : w.data ? w.data[at] : (float)w.whole[at] * w.scale[c + i];
        }
}

/* The image; its rows up to `last` are kept aside, row h at h mod span. */
typedef struct {
    const float *pixels;
    int height, width, channels, span, last;
    const eight *aside;
} source;

EK_INLINE void sum_taps(axis down, axis across, const source *from, int kernel_w, const eight *filter, int n, eight sum) {
    float s[CHANNELS] = {0};
    for (int i = 0, h = down.at; i < down.taps; i++, h += down.next) {
        int kept = h <= from->last;
        ptrdiff_t pixel = kept ? CHANNELS : from->channels;
        const float *x = kept ? from->aside[(h % from->span) * from->width + across.at]
                              : from->pixels + ((ptrdiff_t)h * from->width + across.at) * pixel;
        const eight *f = filter + (down.first + i * down.step) * kernel_w + across.first;
        for (int j = 0; j < across.taps; j++, x += across.next * pixel, f += across.step) {
            for (int k = 0; k < n; k++) s[k] += x[k] * (*f)[k];
        }
    }
    memcpy(sum, s, sizeof s);
}

/* Channels c … of all pixels of y, or of dx. */
typedef struct {
    const ek_conv *g;
    const float *image; /* x, or dy */
    int height, width;  /* of it */
    int rows, columns;  /* of the result */
    ek_real w;
    const ek_epilogue *finish;
    eight *filter, *aside; /* aside: where the result is written over the image */
    axis (*row_of)(const ek_conv *g, int h), *across; /* across: of each column */
} job;

static void keep_aside(const source *from, int h, int n, eight *aside) {
    const float *row = from->pixels + (ptrdiff_t)h * from->width * from->channels;
    for (int w = 0; w < from->width; w++, row += from->channels)
        for (int k = 0; k < n; k++) aside[(h % from->span) * from->width + w][k] = row[k];
}

enum { RESULTS = 8 }; /* finished at a time */

/* Row h, n channels from c on, whose first result is pixel `place`. */
static void run_row(const job *j, const source *from, int h, int c, int n, size_t place) {
    axis down = j->row_of(j->g, h);
    eight sums[RESULTS];
    for (int w = 0; w < j->columns; w += RESULTS) {
        int count = j->columns - w < RESULTS ? j->columns - w : RESULTS;
        for (int i = 0; i < count; i++) {
            if (n == CHANNELS) sum_taps(down, j->across[w + i], from, j->g->kernel_w, j->filter, CHANNELS, sums[i]);
            else sum_taps(down, j->across[w + i], from, j->g->kernel_w, j->filter, n, sums[i]);
        }
        EK_NAME(ek_finish)(j->finish, sums[0], CHANNELS, (size_t)count, place + (size_t)w, 1, (size_t)c, (size_t)n);
    }
}

static void run(const job *j) {
    const ek_conv *g = j->g;
    size_t image = (size_t)j->height * (size_t)j->width * (size_t)g->channels;
    for (int c = 0; c < g->channels; c += CHANNELS) {
        int n = g->channels - c < CHANNELS ? g->channels - c : CHANNELS;
        size_t place = 0;
        read_filter(g, j->w, c, n, j->filter);
        for (int i = 0; i < g->images; i++) {
            source from = {j->image + (size_t)i * image + c, j->height, j->width, g->channels, span_of(g), -1, j->aside};
            for (int h = 0; h < j->rows; h++, place += (size_t)j->columns) {
                if (j->aside) keep_aside(&from, h, n, j->aside), from.last = h;
                run_row(j, &from, h, c, n, place);
            }
        }
    }
}

static axis *columns_of(const ek_conv *g, axis (*column_of)(const ek_conv *g, int w), int columns, void *to) {
    axis *across = to;
    for (int w = 0; w < columns; w++) across[w] = column_of(g, w);
    return across;
}

void EK_NAME(ek_depthwise_forward)(const ek_conv *c, const float *x, ek_real w, const ek_epilogue *finish, ek_pool *pool, void *scratch) {
    (void)pool;
    axis *across = columns_of(c, forward_column, c->out_w, (eight *)scratch + taps_of(c));
    run(&(job){c, x, c->height, c->width, c->out_h, c->out_w, w, finish, scratch, NULL, forward_row, across});
}

void EK_NAME(ek_depthwise_input_grad)(const ek_conv *c, const float *dy, ek_real w, const ek_epilogue *finish, ek_pool *pool,
        void *scratch) {
    (void)pool;
    eight *filter = scratch, *aside = dy == finish->y ? filter + taps_of(c) : NULL;
    eight *end = filter + taps_of(c) + (aside ? (size_t)span_of(c) * (size_t)c->out_w : 0);
    axis *across = columns_of(c, backward_column, c->width, end);
    run(&(job){c, dy, c->out_h, c->out_w, c->height, c->width, w, finish, filter, aside, backward_row, across});
}

/* --- weight gradient --- */

/* The pixel's share of the sums: x's channels times dy's, tap by tap. */
EK_INLINE void add_pixel(const ek_conv *g, axis down, axis across, const ek_real *x, size_t image, const float *dy, int n, eight *sum) {
    float d[CHANNELS];
    for (int k = 0; k < n; k++) d[k] = dy[k];
    for (int i = 0; i < down.taps; i++)
        for (int j = 0; j < across.taps; j++) {
            size_t pixel = (size_t)(down.at + i * down.next) * (size_t)g->width + (size_t)(across.at + j * across.next);
            size_t at = image + pixel * (size_t)g->channels;
            float *to = sum[(down.first + i) * g->kernel_w + across.first + j];
            for (int k = 0; k < n; k++) to[k] += d[k] * (x->data ? x->data[at + (size_t)k] : (float)(x->whole[at + (size_t)k] - x->zero));
        }
}

static void weigh(const ek_conv *g, ek_real x, const float *dy, int c, int n, const axis *across, eight *sum, eight total) {
    size_t size = (size_t)g->height * (size_t)g->width * (size_t)g->channels;
    memset(sum, 0, taps_of(g) * sizeof *sum);
    memset(total, 0, sizeof(eight));
    dy += c;
    for (int i = 0; i < g->images; i++)
        for (int h = 0; h < g->out_h; h++) {
            axis down = forward_row(g, h);
            for (int w = 0; w < g->out_w; w++, dy += g->channels) {
                size_t image = (size_t)i * size + (size_t)c;
                if (n == CHANNELS) add_pixel(g, down, across[w], &x, image, dy, CHANNELS, sum);
                else add_pixel(g, down, across[w], &x, image, dy, n, sum);
                for (int k = 0; k < n; k++) total[k] += dy[k];
            }
        }
}

void EK_NAME(ek_depthwise_weight_grad)(const ek_conv *g, ek_real x, const float *dy, float *dw, float *db, ek_pool *pool, void *scratch) {
    eight *sum = scratch, total;
    const axis *across = columns_of(g, forward_column, g->out_w, sum + taps_of(g));
    float unit = x.data ? 1.0f : *x.scale;
    (void)pool;
    for (int c = 0; c < g->channels; c += CHANNELS) {
        int n = g->channels - c < CHANNELS ? g->channels - c : CHANNELS;
        weigh(g, x, dy, c, n, across, sum, total);
        for (size_t tap = 0; tap < taps_of(g); tap++)
            for (int k = 0; k < n; k++) dw[tap * (size_t)g->channels + (size_t)(c + k)] = sum[tap][k] * unit;
        for (int k = 0; db && k < n; k++) db[c + k] = total[k];
    }
}
