/* Depthwise convolutions, one filter a channel, a row of results at a time. An input gradient is the same loop over
 * dy, for each phase of the pixels with the taps that reach it. */
#include "depthwise_row.h"

typedef struct {
    const ek_conv *c;
    const float *a, *b; /* forward: x, w; input gradient: dy, w; weight gradient: x, dy */
    const ek_epilogue *finish;
    float *scratch; /* zeros for a pixel; then the threads' parts */
    size_t part;
    ek_turns turns;
    size_t rows; /* of a turn, of the results' rows */
} job;

static void cut_rows(job *work, size_t rows, const ek_pool *pool) {
    size_t parts = ek_parts((size_t)ek_pool_threads(pool));
    work->rows = rows ? ek_even(rows, (rows + parts - 1) / parts, EK_3X3_ROWS) : 1;
    work->turns.parts = (rows + work->rows - 1) / work->rows;
}

/* The rows, of `rows` in all, of a thread's next turn; whether there is one. */
static int take_rows(job *work, int index, int count, size_t rows, size_t *from, size_t *to) {
    if (!ek_take(&work->turns, index, count, from)) return 0;
    *from *= work->rows, *to = ek_min(*from + work->rows, rows);
    return 1;
}

static size_t zeros_of(int channels) { return ek_round_up((size_t)channels, 16); }

size_t EK_NAME(ek_depthwise_scratch)(const ek_conv *c) { return zeros_of(c->channels) * sizeof(float); }

size_t EK_NAME(ek_depthwise_input_grad_scratch)(const ek_conv *c) { return EK_NAME(ek_depthwise_scratch)(c); }

/* The rows of x that the next `rows` results after these are the first to read. */
static void find_next(const ek_conv *c, ek_row *r, int rows) {
    size_t line = (size_t)c->width * (size_t)c->channels, down = (size_t)(rows * c->stride_h);
    r->next = r->source + ((ptrdiff_t)(r->row0 + (c->kernel_h - 1) * c->dilation_h + (rows - 1) * c->stride_h) + 1) * (ptrdiff_t)line;
    r->next_floats = down * line;
}

/* How many rows from `row` on are computed together, of at most `together`: they lie before `to` and in one image of `height` rows. */
static int rows_together(int together, size_t row, size_t to, int height) {
    size_t left = ek_min(to - row, (size_t)height - row % (size_t)height);
    return (int)ek_min(left, (size_t)together);
}

/* What ek_depthwise_3x3 computes. */
static int is_3x3(const ek_conv *c, const ek_row *r) {
    return r->taps_h == 3 && r->taps_w == 3 && r->next_h == 1 && r->next_w == 1 && c->stride_h == c->stride_w && c->stride_h <= 2
            && r->step == c->stride_h; /* an input gradient's phases have none */
}

static void compute_rows(const ek_conv *c, const ek_row *row, int rows, const ek_epilogue *finish) {
    int whole = row->channels / EK_STEP * EK_STEP;
    if (!is_3x3(c, row)) {
        EK_NAME(ek_depthwise_row)(row, finish);
        return;
    }
    EK_NAME(ek_depthwise_3x3)(row, rows, finish);
    ek_row r = *row;
    for (int i = 0; i < rows && whole < r.channels; i++, r.row0 += r.step, r.place += (size_t)r.count)
        EK_NAME(ek_depthwise_rest)(&r, finish, whole);
}

static void forward_rows(const job *work, size_t from, size_t to) {
    const ek_conv *c = work->c;
    size_t pixels = (size_t)c->height * (size_t)c->width;
    ek_row r = {.filter = work->b, .filter_row = (ptrdiff_t)c->kernel_w * c->channels, .filter_column = c->channels,
            .zeros = work->scratch};
    r.height = c->height, r.width = c->width, r.channels = c->channels, r.taps_h = c->kernel_h, r.taps_w = c->kernel_w;
    r.col0 = -c->left, r.next_h = c->dilation_h, r.next_w = c->dilation_w, r.step = c->stride_w, r.count = c->out_w;
    r.place_step = 1;
    int together = is_3x3(c, &r) ? EK_3X3_ROWS : 1;
    for (size_t row = from; row < to;) {
        int rows = rows_together(together, row, to, c->out_h);
        r.source = work->a + row / (size_t)c->out_h * pixels * (size_t)c->channels;
        r.row0 = (int)(row % (size_t)c->out_h) * c->stride_h - c->top;
        r.place = row * (size_t)c->out_w;
        find_next(c, &r, rows);
        compute_rows(c, &r, rows, work->finish);
        row += (size_t)rows;
    }
}

static void forward_part(void *context, int index, int count) {
    job *work = context;
    size_t from, to;
    while (take_rows(work, index, count, (size_t)work->c->images * (size_t)work->c->out_h, &from, &to)) forward_rows(work, from, to);
    ek_finished(work->finish);
}

void EK_NAME(ek_depthwise_forward)(const ek_conv *c, const float *x, ek_real w, const ek_epilogue *finish,
        ek_pool *pool, void *scratch) {
    job work = {.c = c, .a = x, .b = w.data, .finish = finish, .scratch = scratch};
    cut_rows(&work, (size_t)c->images * (size_t)c->out_h, pool);
    memset(scratch, 0, EK_NAME(ek_depthwise_scratch)(c));
    ek_pool_run(pool, forward_part, &work);
}

static void input_grad_rows(const job *work, size_t from, size_t to) {
    const ek_conv *c = work->c;
    size_t pixels = (size_t)c->out_h * (size_t)c->out_w;
    for (size_t row = from, rows = 1; row < to; row += rows) {
        int h = (int)(row % (size_t)c->height);
        ek_phase down = ek_phase_backwards(ek_phase_of(h % c->stride_h, c->kernel_h, c->stride_h, c->top, c->dilation_h));
        for (int w = 0; w < c->stride_w && w < c->width; w++) {
            ek_phase across = ek_phase_backwards(ek_phase_of(w, c->kernel_w, c->stride_w, c->left, c->dilation_w));
            ek_row r = {.source = work->a + row / (size_t)c->height * pixels * (size_t)c->channels,
                    .zeros = work->scratch};
            r.filter_column = (ptrdiff_t)across.step * c->channels,
                    r.filter_row = (ptrdiff_t)down.step * c->kernel_w * c->channels;
            r.filter = work->b + ((ptrdiff_t)down.first * c->kernel_w + across.first) * c->channels;
            r.height = c->out_h, r.width = c->out_w, r.channels = c->channels, r.taps_h = down.count,
                    r.taps_w = across.count;
            r.row0 = h / c->stride_h + down.offset, r.col0 = across.offset, r.next_h = down.next,
                    r.next_w = across.next;
            r.step = 1, r.count = (c->width - w + c->stride_w - 1) / c->stride_w;
            r.place = row * (size_t)c->width + (size_t)w, r.place_step = (size_t)c->stride_w;
            rows = is_3x3(c, &r) ? (size_t)rows_together(EK_3X3_ROWS, row, to, c->height) : 1;
            if (w == 0 && h % c->stride_h == c->stride_h - 1) { /* a row of dy is new to stride_h rows of x's */
                size_t line = (size_t)c->out_w * (size_t)c->channels;
                r.next_floats = rows * line;
                r.next = r.source + (ptrdiff_t)(r.row0 + r.taps_h + (int)rows - 1) * (ptrdiff_t)line;
            }
            compute_rows(c, &r, (int)rows, work->finish);
        }
    }
}

static void input_grad_part(void *context, int index, int count) {
    job *work = context;
    size_t from, to;
    while (take_rows(work, index, count, (size_t)work->c->images * (size_t)work->c->height, &from, &to)) input_grad_rows(work, from, to);
    ek_finished(work->finish);
}

void EK_NAME(ek_depthwise_input_grad)(const ek_conv *c, const float *dy, ek_real w, const ek_epilogue *finish,
        ek_pool *pool, void *scratch) {
    job work = {.c = c, .a = dy, .b = w.data, .finish = finish, .scratch = scratch};
    cut_rows(&work, (size_t)c->images * (size_t)c->height, pool);
    memset(scratch, 0, EK_NAME(ek_depthwise_scratch)(c));
    ek_pool_run(pool, input_grad_part, &work);
}

/* --- weight gradient: each thread sums its rows into its own part; the parts are added in order --- */

static size_t taps_of(const ek_conv *c) { return (size_t)c->kernel_h * (size_t)c->kernel_w; }

static size_t part_floats(const ek_conv *c) { return ek_round_up((taps_of(c) + 1) * (size_t)c->channels, 16); }

size_t EK_NAME(ek_depthwise_weight_grad_scratch)(const ek_conv *c, int threads) {
    return EK_NAME(ek_depthwise_scratch)(c) + part_floats(c) * sizeof(float) * (size_t)threads;
}

static float *part_of(const job *work, int index) { return work->scratch + zeros_of(work->c->channels)
        + (size_t)index * work->part; }

static void weight_grad_part(void *context, int index, int count) {
    const job *work = context;
    const ek_conv *c = work->c;
    size_t from, to, pixels = (size_t)c->height * (size_t)c->width, channels = (size_t)c->channels;
    float *sums = part_of(work, index), *total = sums + taps_of(c) * channels;
    memset(sums, 0, work->part * sizeof *sums);
    ek_share((size_t)c->images * (size_t)c->out_h, 1, index, count, &from, &to);
    ek_row r = {.zeros = work->scratch, .height = c->height, .width = c->width, .channels = c->channels};
    r.taps_h = c->kernel_h, r.taps_w = c->kernel_w, r.col0 = -c->left, r.next_h = c->dilation_h,
            r.next_w = c->dilation_w;
    r.step = c->stride_w, r.count = c->out_w;
    for (size_t row = from; row < to; row++) {
        r.source = work->a + row / (size_t)c->out_h * pixels * channels;
        r.filter = work->b + row * (size_t)c->out_w * channels;
        r.row0 = (int)(row % (size_t)c->out_h) * c->stride_h - c->top;
        find_next(c, &r, 1);
        EK_NAME(ek_depthwise_row_weights)(&r, sums, total);
    }
}

/* `count` sums from `at` of all threads' parts, in order. */
static void add_parts(const job *work, size_t at, size_t count, int threads, float *restrict to) {
    memcpy(to, part_of(work, 0) + at, count * sizeof *to);
    for (int t = 1; t < threads; t++) {
        const float *part = part_of(work, t) + at;
        for (size_t i = 0; i < count; i++) to[i] += part[i];
    }
}

void EK_NAME(ek_depthwise_weight_grad)(const ek_conv *c, ek_real x, const float *dy, float *dw, float *db,
        ek_pool *pool, void *scratch) {
    job work = {.c = c, .a = x.data, .b = dy, .scratch = scratch, .part = part_floats(c)};
    memset(scratch, 0, EK_NAME(ek_depthwise_scratch)(c));
    ek_pool_run(pool, weight_grad_part, &work);
    size_t channels = (size_t)c->channels, weights = taps_of(c) * channels;
    add_parts(&work, 0, weights, ek_pool_threads(pool), dw);
    if (db) add_parts(&work, weights, channels, ek_pool_threads(pool), db);
}
