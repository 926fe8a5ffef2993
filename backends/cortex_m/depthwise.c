/* Depthwise convolutions of floats for a processor with 32 scalar float registers and little memory: CHANNELS at a time, whose filter
 * (integers become floats there) or whose gradient lies in a small tile of scratch memory. */
#include "conv.h"

enum { CHANNELS = EK_STEP };

typedef float eight[CHANNELS];

static size_t taps_of(const ek_conv *c) { return (size_t)c->kernel_h * (size_t)c->kernel_w; }

size_t EK_NAME(ek_depthwise_scratch)(const ek_conv *c) { return taps_of(c) * sizeof(eight); }

/* Rows of dy that dx is written over while they are still read. */
static int span_of(const ek_conv *c) {
    int span = (c->kernel_h - 1) * c->dilation_h + 1;
    return span < c->out_h ? span : c->out_h;
}

size_t EK_NAME(ek_depthwise_input_grad_scratch)(const ek_conv *c) {
    int over = c->stride_h == 1 && c->stride_w == 1 && c->height == c->out_h && c->width == c->out_w;
    return EK_NAME(ek_depthwise_scratch)(c) + (over ? (size_t)span_of(c) * (size_t)c->out_w * sizeof(eight) : 0);
}

size_t EK_NAME(ek_depthwise_weight_grad_scratch)(const ek_conv *c, int threads) {
    (void)threads;
    return taps_of(c) * sizeof(eight);
}

typedef struct {
    int from, to; /* taps inside the image */
} ek_inside;

/* Which taps at + i · next of `count` are pixels of 0 … size - 1. */
EK_INLINE ek_inside inside(int at, int next, int count, int size) {
    ek_inside r = {0, count};
    while (r.from < count && (at + r.from * next < 0 || at + r.from * next >= size)) r.from++;
    while (r.to > r.from && (at + (r.to - 1) * next < 0 || at + (r.to - 1) * next >= size)) r.to--;
    return r;
}

/* The filter of n channels from c on, tap by tap; zeros past them. */
static void read_filter(const ek_conv *g, ek_real w, int c, int n, eight *to) {
    for (size_t tap = 0; tap < taps_of(g); tap++)
        for (int i = 0; i < CHANNELS; i++) {
            size_t at = tap * (size_t)g->channels + (size_t)(c + i);
            to[tap][i] = i >= n ? 0.0f : w.data ? w.data[at] : (float)w.whole[at] * w.scale[c + i];
        }
}

/* What one result sees of the other image: tap (i, j) is pixel (h + i next_h, w + j next_w), its filter's place
 * (first_h + i step_h, first_w + j step_w). */
typedef struct {
    int h, w, next_h, next_w, taps_h, taps_w, first_h, first_w, step_h, step_w;
} view;

/* The image; its rows up to `last` are kept aside, row h at h mod span. */
typedef struct {
    const float *pixels;
    int height, width, channels, span, last;
    const eight *aside;
} source;

EK_INLINE void sum_taps(const view *v, const source *from, int kernel_w, const eight *filter, int n, eight sum) {
    ek_inside down = inside(v->h, v->next_h, v->taps_h, from->height), across = inside(v->w, v->next_w, v->taps_w, from->width);
    float s[CHANNELS] = {0};
    for (int i = down.from; i < down.to; i++) {
        int h = v->h + i * v->next_h, w = v->w + across.from * v->next_w, kept = h <= from->last;
        ptrdiff_t pixel = kept ? CHANNELS : from->channels;
        const float *x = kept ? from->aside[(h % from->span) * from->width + w] : from->pixels + ((ptrdiff_t)h * from->width + w) * pixel;
        const eight *f = filter + (v->first_h + i * v->step_h) * kernel_w + v->first_w + across.from * v->step_w;
        for (int j = across.from; j < across.to; j++, x += v->next_w * pixel, f += v->step_w) {
            for (int k = 0; k < n; k++) s[k] += x[k] * (*f)[k];
        }
    }
    memcpy(sum, s, sizeof s);
}

/* Channels c … of all pixels of y (`places`: of dx), seen through view_of(h, w). */
typedef struct {
    const ek_conv *g;
    const float *image; /* x, or dy */
    int height, width;  /* of it */
    int rows, columns;  /* of the result */
    ek_real w;
    const ek_epilogue *finish;
    eight *filter, *aside; /* aside: where the result is written over the image */
    view (*view_of)(const ek_conv *g, int h, int w);
} job;

static void keep_aside(const source *from, int h, int n, eight *aside) {
    const float *row = from->pixels + (ptrdiff_t)h * from->width * from->channels;
    for (int w = 0; w < from->width; w++, row += from->channels)
        for (int k = 0; k < n; k++) aside[(h % from->span) * from->width + w][k] = row[k];
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
            for (int h = 0; h < j->rows; h++) {
                if (j->aside) keep_aside(&from, h, n, j->aside), from.last = h;
                for (int w = 0; w < j->columns; w++, place++) {
                    view v = j->view_of(g, h, w);
                    eight sum;
                    if (n == CHANNELS) sum_taps(&v, &from, g->kernel_w, j->filter, CHANNELS, sum);
                    else sum_taps(&v, &from, g->kernel_w, j->filter, n, sum);
                    EK_NAME(ek_finish)(j->finish, sum, CHANNELS, 1, place, 0, (size_t)c, (size_t)n);
                }
            }
        }
    }
}

static view forward_view(const ek_conv *g, int h, int w) {
    return (view){h * g->stride_h - g->top, w * g->stride_w - g->left, g->dilation_h, g->dilation_w, g->kernel_h, g->kernel_w, 0, 0, 1, 1};
}

/* The results that pixel (h, w) went into. */
static view backward_view(const ek_conv *g, int h, int w) {
    ek_phase down = ek_phase_of(h % g->stride_h, g->kernel_h, g->stride_h, g->top, g->dilation_h);
    ek_phase across = ek_phase_of(w % g->stride_w, g->kernel_w, g->stride_w, g->left, g->dilation_w);
    return (view){h / g->stride_h + down.offset, w / g->stride_w + across.offset, down.next, across.next, down.count, across.count,
                  down.first, across.first, down.step, across.step};
}

void EK_NAME(ek_depthwise_forward)(const ek_conv *c, const float *x, ek_real w, const ek_epilogue *finish, ek_pool *pool, void *scratch) {
    (void)pool;
    run(&(job){c, x, c->height, c->width, c->out_h, c->out_w, w, finish, scratch, NULL, forward_view});
}

void EK_NAME(ek_depthwise_input_grad)(const ek_conv *c, const float *dy, ek_real w, const ek_epilogue *finish, ek_pool *pool,
        void *scratch) {
    (void)pool;
    eight *aside = dy == finish->y ? (eight *)scratch + taps_of(c) : NULL;
    run(&(job){c, dy, c->out_h, c->out_w, c->height, c->width, w, finish, scratch, aside, backward_view});
}

/* --- weight gradient --- */

/* The pixel's share of the sums: x's channels times dy's, tap by tap. */
EK_INLINE void add_pixel(const ek_conv *g, const view *v, const ek_real *x, size_t image, const float *dy, int n, eight *sum) {
    ek_inside down = inside(v->h, v->next_h, v->taps_h, g->height), across = inside(v->w, v->next_w, v->taps_w, g->width);
    float d[CHANNELS];
    for (int k = 0; k < n; k++) d[k] = dy[k];
    for (int i = down.from; i < down.to; i++)
        for (int j = across.from; j < across.to; j++) {
            size_t pixel = (size_t)(v->h + i * v->next_h) * (size_t)g->width + (size_t)(v->w + j * v->next_w);
            size_t at = image + pixel * (size_t)g->channels;
            float *to = sum[i * g->kernel_w + j];
            for (int k = 0; k < n; k++) to[k] += d[k] * (x->data ? x->data[at + (size_t)k] : (float)(x->whole[at + (size_t)k] - x->zero));
        }
}

static void weigh(const ek_conv *g, ek_real x, const float *dy, int c, int n, eight *sum, eight total) {
    size_t size = (size_t)g->height * (size_t)g->width * (size_t)g->channels;
    memset(sum, 0, taps_of(g) * sizeof *sum);
    memset(total, 0, sizeof(eight));
    dy += c;
    for (int i = 0; i < g->images; i++)
        for (int h = 0; h < g->out_h; h++)
            for (int w = 0; w < g->out_w; w++, dy += g->channels) {
                view v = forward_view(g, h, w);
                size_t image = (size_t)i * size + (size_t)c;
                if (n == CHANNELS) add_pixel(g, &v, &x, image, dy, CHANNELS, sum);
                else add_pixel(g, &v, &x, image, dy, n, sum);
                for (int k = 0; k < n; k++) total[k] += dy[k];
            }
}

void EK_NAME(ek_depthwise_weight_grad)(const ek_conv *g, ek_real x, const float *dy, float *dw, float *db, ek_pool *pool, void *scratch) {
    eight *sum = scratch, total;
    float unit = x.data ? 1.0f : *x.scale;
    (void)pool;
    for (int c = 0; c < g->channels; c += CHANNELS) {
        int n = g->channels - c < CHANNELS ? g->channels - c : CHANNELS;
        weigh(g, x, dy, c, n, sum, total);
        for (size_t tap = 0; tap < taps_of(g); tap++)
            for (int k = 0; k < n; k++) dw[tap * (size_t)g->channels + (size_t)(c + k)] = sum[tap][k] * unit;
        for (int k = 0; db && k < n; k++) db[c + k] = total[k];
    }
}
