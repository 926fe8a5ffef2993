/* q_conv2d by dual 16-bit multiply-adds (dsp.h). Sums are of x · w; what x's zero point adds to them is known beforehand, so pixels
 * outside the image are zero points. */
#include "q_conv2d.h"

static ek_q_conv conv_of(const ek_call *call) {
    const ek_tensor *x = call->in_t[EK_Q_CONV2D_X], *w = call->in_t[EK_Q_CONV2D_W], *y = call->out_t[EK_Q_CONV2D_Y];
    ek_q_conv c = {.a = call->attrs, .x = call->in[EK_Q_CONV2D_X], .w = call->in[EK_Q_CONV2D_W], .y = call->out[EK_Q_CONV2D_Y]};
    c.mask = call->out[EK_Q_CONV2D_MASK], c.bias = call->in[EK_Q_CONV2D_BIAS], c.scale = call->in[EK_Q_CONV2D_W_SCALE];
    c.images = (int)x->dim[0], c.height = (int)x->dim[1], c.width = (int)x->dim[2], c.channels = (int)x->dim[3];
    c.out_h = (int)y->dim[1], c.out_w = (int)y->dim[2], c.outputs = (int)y->dim[3];
    c.kernel_h = (int)w->dim[0], c.kernel_w = (int)w->dim[1];
    c.rows = (size_t)y->dim[0] * y->dim[1] * y->dim[2];
    c.mask_bytes = ((size_t)c.outputs + 7) / 8;
    c.rest = call->in[EK_Q_CONV2D_REST], c.own = w->dim[2];
    c.depth = (size_t)w->dim[0] * w->dim[1] * (call->in_t[EK_Q_CONV2D_REST] ? x->dim[3] : w->dim[2]);
    return c;
}

static size_t scratch_bytes(const ek_call *call, int threads) {
    ek_q_conv c = conv_of(call);
    (void)threads;
    return c.a->groups > 1 ? EK_NAME(ek_q_depthwise_scratch)(&c) : EK_NAME(ek_q_dense_scratch)(&c);
}

static void run(const ek_call *call) {
    ek_q_conv c = conv_of(call);
    c.from = ek_quant_of(call->in[EK_Q_CONV2D_X_QUANT]);
    if (!c.a->real) c.to = ek_quant_of(call->in[EK_Q_CONV2D_Y_QUANT]), c.ratio = ek_ratio_of(c.from.scale, c.to.scale);
    if (c.a->groups > 1) EK_NAME(ek_q_depthwise)(&c, call->scratch);
    else EK_NAME(ek_q_dense)(&c, call->scratch);
}

const ek_kernel EK_NAME(ek_kernel_q_conv2d) = {.scratch_bytes = scratch_bytes, .run = run};
