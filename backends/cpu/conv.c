/* conv2d, conv2d_input_grad, conv2d_weight_grad. Dense convolutions are matrix products over patches (implicit GEMM; an
 * input gradient with stride s is s × s of them, one for each phase of the pixels, so that no product is with a zero);
 * grouped ones are one product a group; depthwise ones have their own loops; 3 × 3 ones may be Winograd's (winograd.h). */
#include "conv.h"
#include "winograd.h"

static ek_conv geometry(const ek_tensor *x, const ek_tensor *y, const int32_t *stride, const int32_t *padding,
        const int32_t *dilation, int groups) {
    ek_conv c = {.images = (int)x->dim[0], .height = (int)x->dim[1], .width = (int)x->dim[2],
            .channels = (int)x->dim[3]};
    c.out_h = (int)y->dim[1], c.out_w = (int)y->dim[2], c.outputs = (int)y->dim[3], c.groups = groups;
    c.stride_h = stride[0], c.stride_w = stride[1], c.dilation_h = dilation[0], c.dilation_w = dilation[1];
    c.top = padding[0], c.left = padding[2];
    return c;
}

static ek_conv forward_geometry(const ek_call *call) {
    const ek_conv2d_attrs *a = call->attrs;
    ek_conv c = geometry(call->in_t[EK_CONV2D_X], call->out_t[EK_CONV2D_Y], a->stride, a->padding, a->dilation,
            a->groups);
    c.kernel_h = (int)call->in_t[EK_CONV2D_W]->dim[0], c.kernel_w = (int)call->in_t[EK_CONV2D_W]->dim[1];
    c.algorithm = a->algorithm;
    return c;
}

static ek_conv input_grad_geometry(const ek_call *call) {
    const ek_conv2d_input_grad_attrs *a = call->attrs;
    ek_conv c = geometry(call->out_t[EK_CONV2D_INPUT_GRAD_DX], call->in_t[EK_CONV2D_INPUT_GRAD_DY], a->stride,
            a->padding, a->dilation, a->groups);
    c.kernel_h = (int)call->in_t[EK_CONV2D_INPUT_GRAD_W]->dim[0],
            c.kernel_w = (int)call->in_t[EK_CONV2D_INPUT_GRAD_W]->dim[1];
    c.algorithm = a->algorithm;
    return c;
}

static ek_conv weight_grad_geometry(const ek_call *call) {
    const ek_conv2d_weight_grad_attrs *a = call->attrs;
    ek_conv c = geometry(call->in_t[EK_CONV2D_WEIGHT_GRAD_X], call->in_t[EK_CONV2D_WEIGHT_GRAD_DY], a->stride,
            a->padding, a->dilation, a->groups);
    c.kernel_h = a->kernel[0], c.kernel_w = a->kernel[1], c.algorithm = a->algorithm;
    return c;
}

static size_t rows_of(const ek_conv *c) { return (size_t)c->images * (size_t)c->out_h * (size_t)c->out_w; }

static size_t patch_of(const ek_conv *c) { return (size_t)c->kernel_h * (size_t)c->kernel_w * (size_t)(c->channels / c->groups); }

/* The windows of x that the outputs of a group see. */
static ek_rows patches_of(const ek_conv *c, ek_real x, int group) {
    int channels = c->channels / c->groups;
    ek_rows a = {.from = ek_real_from(x, group * channels), .ld = (size_t)c->channels, .channels = channels};
    a.patches = !(c->kernel_h == 1 && c->kernel_w == 1 && c->stride_h == 1 && c->stride_w == 1
            && c->out_h == c->height && c->out_w == c->width);
    a.height = c->height, a.width = c->width, a.grid_h = c->out_h, a.grid_w = c->out_w;
    a.step_h = c->stride_h, a.step_w = c->stride_w, a.taps_h = c->kernel_h, a.taps_w = c->kernel_w;
    a.first_h = -c->top, a.first_w = -c->left, a.next_h = c->dilation_h, a.next_w = c->dilation_w;
    return a;
}

static int is_three(const ek_conv *c) {
    return c->kernel_h == 3 && c->kernel_w == 3 && c->stride_h == 1 && c->stride_w == 1 && c->dilation_h == 1
            && c->dilation_w == 1 && c->groups == 1;
}

/* --- forward --- */

static int forward_is_winograd(const ek_conv *c) {
    return is_three(c) && ek_winograd_is(c->algorithm, rows_of(c), (size_t)c->channels, (size_t)c->outputs);
}

static ek_weights forward_weights(const ek_conv *c, const float *w, int group) {
    return (ek_weights){.from.data = w + group * (c->outputs / c->groups), .depth = patch_of(c), .taps_w = 1,
            .by_k = c->outputs, .by_n = 1};
}

static size_t forward_scratch(const ek_call *call, int threads) {
    ek_conv c = forward_geometry(call);
    if (ek_is_depthwise(&c)) return EK_NAME(ek_depthwise_scratch)(&c);
    if (forward_is_winograd(&c)) return EK_NAME(ek_winograd_scratch)((size_t)c.channels, (size_t)c.outputs, threads);
    return EK_NAME(ek_gemm_scratch)(rows_of(&c), patch_of(&c), (size_t)(c.outputs / c.groups), threads);
}

static size_t forward_prepared(const ek_call *call) {
    ek_conv c = forward_geometry(call);
    if (c.groups > 1 || call->in_t[EK_CONV2D_W]->storage != EK_CONSTANT || rows_of(&c) > EK_PACK_ROWS) return 0;
    if (forward_is_winograd(&c)) return 0;
    return EK_NAME(ek_gemm_packed_floats)(patch_of(&c), (size_t)c.outputs) * sizeof(float);
}

static void forward_prepare(const ek_call *call, void *to) {
    ek_conv c = forward_geometry(call);
    ek_weights b = forward_weights(&c, call->in[EK_CONV2D_W], 0);
    EK_NAME(ek_gemm_pack)(&b, patch_of(&c), (size_t)c.outputs, to);
}

static void forward_winograd(const ek_call *call, const ek_conv *c, const ek_epilogue *finish) {
    ek_winograd g = {.images = c->images, .height = c->height, .width = c->width, .out_h = c->out_h, .out_w = c->out_w,
            .k = (size_t)c->channels, .n = (size_t)c->outputs, .first_h = -c->top, .first_w = -c->left,
            .x = call->in[EK_CONV2D_X], .finish = *finish};
    ptrdiff_t tap = (ptrdiff_t)c->channels * c->outputs;
    g.w = (ek_weights){.from.data = call->in[EK_CONV2D_W], .depth = g.k, .taps_w = 3, .tap_row = 3 * tap, .tap_column = tap,
            .by_k = c->outputs, .by_n = 1};
    EK_NAME(ek_winograd)(&g, call->pool, call->scratch);
}

static void forward_run(const ek_call *call) {
    ek_conv c = forward_geometry(call);
    ek_epilogue finish = ek_forward_epilogue(call, ((const ek_conv2d_attrs *)call->attrs)->act);
    if (ek_is_depthwise(&c)) {
        EK_NAME(ek_depthwise_forward)(&c, call->in[EK_CONV2D_X], (ek_real){.data = call->in[EK_CONV2D_W]}, &finish, call->pool,
                call->scratch);
        return;
    }
    if (forward_is_winograd(&c)) {
        forward_winograd(call, &c, &finish);
        return;
    }
    for (int group = 0; group < c.groups; group++) {
        ek_gemm g = {.m = rows_of(&c), .k = patch_of(&c), .n = (size_t)(c.outputs / c.groups), .finish = finish,
                .packed = call->prepared};
        g.a = patches_of(&c, (ek_real){.data = call->in[EK_CONV2D_X]}, group);
        g.b = forward_weights(&c, call->in[EK_CONV2D_W], group);
        g.column = (size_t)group * g.n;
        EK_NAME(ek_gemm)(&g, call->pool, call->scratch);
    }
}

/* --- input gradient --- */

/* Pixels of a phase along one axis. */
static int grid_of(int size, int phase, int stride) { return (size - phase + stride - 1) / stride; }

static int input_grad_is_winograd(const ek_conv *c) {
    size_t pixels = (size_t)c->images * (size_t)c->height * (size_t)c->width;
    return is_three(c) && ek_winograd_is(c->algorithm, pixels, (size_t)c->outputs, (size_t)c->channels);
}

/* Of a copy of dy, where dx may take its place and the kernel needs it whole. */
static size_t copy_bytes(const ek_conv *c) {
    int over = c->groups > 1 && c->stride_h == 1 && c->stride_w == 1 && c->channels == c->outputs && c->height == c->out_h
            && c->width == c->out_w;
    if (!over || (EK_DEPTHWISE_OVER_DY && ek_is_depthwise(c))) return 0;
    return ek_round_up(rows_of(c) * (size_t)c->outputs * sizeof(float), 64);
}

/* What lies before the products' own scratch memory: the filter, dy. */
static size_t operands_bytes(const ek_call *call, const ek_conv *c) {
    return EK_NAME(ek_real_bytes)(call->in_t[EK_CONV2D_INPUT_GRAD_W]) + copy_bytes(c);
}

static size_t input_grad_scratch(const ek_call *call, int threads) {
    ek_conv c = input_grad_geometry(call);
    size_t real = operands_bytes(call, &c);
    if (ek_is_depthwise(&c)) return real + EK_NAME(ek_depthwise_input_grad_scratch)(&c);
    if (input_grad_is_winograd(&c))
        return real + EK_NAME(ek_winograd_scratch)((size_t)c.outputs, (size_t)c.channels, threads);
    size_t most = 0, n = (size_t)(c.channels / c.groups), k = (size_t)(c.outputs / c.groups);
    for (int h = 0; h < c.stride_h && h < c.height; h++) {
        for (int w = 0; w < c.stride_w && w < c.width; w++) {
            ek_phase across = ek_phase_of(w, c.kernel_w, c.stride_w, c.left, c.dilation_w);
            ek_phase down = ek_phase_of(h, c.kernel_h, c.stride_h, c.top, c.dilation_h);
            size_t pixels = (size_t)c.images * (size_t)grid_of(c.height, h, c.stride_h) * (size_t)grid_of(c.width, w, c.stride_w);
            size_t need = EK_NAME(ek_gemm_scratch)(pixels, (size_t)down.count * (size_t)across.count * k, n, threads);
            if (need > most) most = need;
        }
    }
    return real + most;
}

/* One phase of one group's pixels. */
static void input_grad_phase(const ek_call *call, const ek_conv *c, const float *dy, ek_real w, const ek_epilogue *finish, int group,
        int phase_h, int phase_w) {
    ek_phase down = ek_phase_of(phase_h, c->kernel_h, c->stride_h, c->top, c->dilation_h);
    ek_phase across = ek_phase_of(phase_w, c->kernel_w, c->stride_w, c->left, c->dilation_w);
    int grid_h = grid_of(c->height, phase_h, c->stride_h), grid_w = grid_of(c->width, phase_w, c->stride_w);
    size_t outputs = (size_t)(c->outputs / c->groups), channels = (size_t)(c->channels / c->groups),
            group_at = (size_t)group;
    ek_gemm g = {.m = (size_t)c->images * (size_t)grid_h * (size_t)grid_w, .n = channels, .finish = *finish,
            .column = group_at * channels};
    g.k = (size_t)down.count * (size_t)across.count * outputs;

    g.a = (ek_rows){.from.data = dy + group_at * outputs,
            .ld = (size_t)c->outputs};
    g.a.channels = (int)outputs, g.a.height = c->out_h, g.a.width = c->out_w, g.a.grid_h = grid_h, g.a.grid_w = grid_w;
    g.a.patches = !(down.count == 1 && across.count == 1 && grid_h == c->out_h && grid_w == c->out_w
            && !down.offset && !across.offset);
    g.a.step_h = g.a.step_w = 1, g.a.taps_h = down.count, g.a.taps_w = across.count;
    g.a.first_h = down.offset, g.a.first_w = across.offset, g.a.next_h = down.next, g.a.next_w = across.next;

    ptrdiff_t tap = (ptrdiff_t)channels * c->outputs;
    g.b = (ek_weights){.depth = outputs, .taps_w = (size_t)across.count, .by_k = 1, .by_n = c->outputs};
    ptrdiff_t column = (ptrdiff_t)(group_at * outputs);
    g.b.from = ek_real_from(w, column + (down.first * c->kernel_w + across.first) * tap);
    if (w.scale) g.b.from.scale += column;
    g.b.tap_row = down.step * c->kernel_w * tap, g.b.tap_column = across.step * tap;

    g.places = (ek_places){.grid = c->stride_h > 1 || c->stride_w > 1, .grid_h = grid_h, .grid_w = grid_w,
            .height = c->height, .width = c->width};
    g.places.step_h = c->stride_h, g.places.step_w = c->stride_w, g.places.first_h = phase_h,
            g.places.first_w = phase_w;
    EK_NAME(ek_gemm)(&g, call->pool, (char *)call->scratch + operands_bytes(call, c));
}

/* A convolution of dy with the filter turned round, its taps from the last to the first. */
static void input_grad_winograd(const ek_call *call, const ek_conv *c, const float *w, const ek_epilogue *finish) {
    ek_winograd g = {.images = c->images, .height = c->out_h, .width = c->out_w, .out_h = c->height, .out_w = c->width,
            .k = (size_t)c->outputs, .n = (size_t)c->channels, .first_h = c->top - 2, .first_w = c->left - 2,
            .x = call->in[EK_CONV2D_INPUT_GRAD_DY], .finish = *finish};
    ptrdiff_t tap = (ptrdiff_t)c->channels * c->outputs;
    g.w = (ek_weights){.from.data = w + 8 * tap, .depth = g.k, .taps_w = 3,
            .tap_row = -3 * tap, .tap_column = -tap, .by_k = 1, .by_n = c->outputs};
    EK_NAME(ek_winograd)(&g, call->pool, (char *)call->scratch + EK_NAME(ek_real_bytes)(call->in_t[EK_CONV2D_INPUT_GRAD_W]));
}

typedef struct {
    float *to;
    const float *from;
    size_t floats;
} copy;

static void copy_part(void *context, int index, int count) {
    const copy *c = context;
    size_t from, to;
    ek_share(c->floats, EK_LANES, index, count, &from, &to);
    memcpy(c->to + from, c->from + from, (to - from) * sizeof *c->to);
}

static void input_grad_run(const ek_call *call) {
    ek_conv c = input_grad_geometry(call);
    ek_epilogue finish = ek_backward_epilogue(call, ((const ek_conv2d_input_grad_attrs *)call->attrs)->act);
    const ek_tensor *t = call->in_t[EK_CONV2D_INPUT_GRAD_W];
    ek_real filters = EK_NAME(ek_real_weight)(t, call->in[EK_CONV2D_INPUT_GRAD_W],
            call->in[EK_CONV2D_INPUT_GRAD_SCALE], call->scratch);
    const float *dy = call->in[EK_CONV2D_INPUT_GRAD_DY];
    if (copy_bytes(&c) && dy == call->out[EK_CONV2D_INPUT_GRAD_DX]) {
        copy of_dy = {(float *)(void *)((char *)call->scratch + EK_NAME(ek_real_bytes)(t)), dy, rows_of(&c) * (size_t)c.outputs};
        ek_pool_run(call->pool, copy_part, &of_dy);
        dy = of_dy.to;
    }
    if (ek_is_depthwise(&c)) {
        EK_NAME(ek_depthwise_input_grad)(&c, dy, filters, &finish, call->pool, (char *)call->scratch + operands_bytes(call, &c));
        return;
    }
    if (input_grad_is_winograd(&c)) {
        input_grad_winograd(call, &c, filters.data, &finish);
        return;
    }
    for (int group = 0; group < c.groups; group++)
        for (int h = 0; h < c.stride_h && h < c.height; h++)
            for (int w = 0; w < c.stride_w && w < c.width; w++)
                input_grad_phase(call, &c, dy, filters, &finish, group, h, w);
}

/* --- weight gradient --- */

static int weight_grad_is_winograd(const ek_conv *c) {
    return is_three(c) && c->outputs % 16 == 0 && ek_winograd_is(c->algorithm, rows_of(c), (size_t)c->channels, (size_t)c->outputs);
}

static size_t weight_grad_scratch(const ek_call *call, int threads) {
    ek_conv c = weight_grad_geometry(call);
    size_t real = EK_NAME(ek_real_bytes)(call->in_t[EK_CONV2D_WEIGHT_GRAD_X]);
    if (ek_is_depthwise(&c)) return real + EK_NAME(ek_depthwise_weight_grad_scratch)(&c, threads);
    if (weight_grad_is_winograd(&c))
        return real + EK_NAME(ek_winograd_grad_scratch)((size_t)c.channels, (size_t)c.outputs, threads);
    return real + EK_NAME(ek_outer_gemm_scratch)(rows_of(&c), patch_of(&c), (size_t)(c.outputs / c.groups), threads);
}

static void weight_grad_run(const ek_call *call) {
    ek_conv c = weight_grad_geometry(call);
    const ek_tensor *t = call->in_t[EK_CONV2D_WEIGHT_GRAD_X];
    const float *dy = call->in[EK_CONV2D_WEIGHT_GRAD_DY];
    ek_real x = EK_NAME(ek_real_activation)(t, call->in[EK_CONV2D_WEIGHT_GRAD_X], call->in[EK_CONV2D_WEIGHT_GRAD_QUANT],
            call->scratch);
    void *scratch = (char *)call->scratch + EK_NAME(ek_real_bytes)(t);
    float *dw = call->out[EK_CONV2D_WEIGHT_GRAD_DW], *db = call->out[EK_CONV2D_WEIGHT_GRAD_DB];
    if (ek_is_depthwise(&c)) {
        EK_NAME(ek_depthwise_weight_grad)(&c, x, dy, dw, db, call->pool, scratch);
        return;
    }
    if (weight_grad_is_winograd(&c)) {
        ek_winograd_grad g = {.images = c.images, .height = c.height, .width = c.width, .out_h = c.out_h, .out_w = c.out_w,
                .k = (size_t)c.channels, .n = (size_t)c.outputs, .first_h = -c.top, .first_w = -c.left, .x = x.data, .dy = dy,
                .dw = dw, .db = db};
        EK_NAME(ek_winograd_grad)(&g, call->pool, scratch);
        return;
    }
    for (int group = 0; group < c.groups; group++) {
        ek_outer_gemm g = {.m = rows_of(&c), .k = patch_of(&c), .n = (size_t)(c.outputs / c.groups)};
        size_t at = (size_t)group * g.n;
        g.a = patches_of(&c, x, group);
        g.dy = dy + at, g.dw = dw + at, g.db = db ? db + at : NULL;
        g.dy_ld = g.dw_ld = (size_t)c.outputs;
        EK_NAME(ek_outer_gemm)(&g, call->pool, scratch);
    }
}

const ek_kernel EK_NAME(ek_kernel_conv2d) = {forward_scratch, forward_prepared, forward_prepare, forward_run};
const ek_kernel EK_NAME(ek_kernel_conv2d_input_grad) = {input_grad_scratch, NULL, NULL, input_grad_run};
const ek_kernel EK_NAME(ek_kernel_conv2d_weight_grad) = {weight_grad_scratch, NULL, NULL, weight_grad_run};
