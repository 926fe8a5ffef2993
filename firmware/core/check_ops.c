/* The shape rule of every op: the C twin of Op.infer in edgekit/graph/ops.
 *
 * Every rule returns NULL, or what is wrong. Shapes are hostile: dims are 1 … INT32_MAX and a tensor has at most INT32_MAX elements
 * (program.c), so a product of two dims fits an int64_t, and nothing here multiplies more than that. */
#include "check_ops.h"

#include <math.h>
#include <string.h>

#include "ops_gen.h"

/* No padded size, stride or dilation is larger, so that positions in a window fit an int32_t with room to spare. */
enum { MAX_EXTENT = 1 << 28 };

/* Multiply-adds of one convolution, so that no buffer that a kernel unfolds its input to overflows. */
static const int64_t MAX_WORK = (int64_t)1 << 58;

enum { BIT_0 = 1, BIT_2 = 4, BIT_3 = 8 };

typedef struct {
    const ek_tensor *in[EK_MAX_IN], *out[EK_MAX_OUT]; /* NULL: absent */
    const void *attrs;
} operands;

typedef const char *rule(const operands *op);

typedef struct {
    const char *name;
    rule *rule;
    uint8_t in, in_required;   /* operand slots, the first of which may not be absent */
    uint8_t out, out_required; /* result slots, likewise */
    uint8_t attr_words;
    uint8_t mutates; /* bit i: operand i is written in place */
} signature;

/* A shape that a result must have. */
typedef struct {
    int rank;
    int64_t dim[EK_MAX_RANK + 1];
} shape;

static shape shape_of(const ek_tensor *t)
{
    shape s = {t->rank, {0}};
    for (int i = 0; i < t->rank; i++)
        s.dim[i] = t->dim[i];
    return s;
}

static shape scalar_shape(void) { return (shape){0, {0}}; }

static shape vector_shape(int64_t size) { return (shape){1, {size}}; }

static int64_t last(const ek_tensor *t) { return t->dim[t->rank - 1]; }

/* t's shape with another last axis. */
static shape with_last(const ek_tensor *t, int64_t size)
{
    shape s = shape_of(t);
    s.dim[s.rank - 1] = size;
    return s;
}

/* t's shape without its last axis. */
static shape without_last(const ek_tensor *t)
{
    shape s = shape_of(t);
    s.rank--;
    return s;
}

static int fits(const ek_tensor *t, shape s)
{
    if (t->rank != s.rank)
        return 0;
    for (int i = 0; i < s.rank; i++)
        if (t->dim[i] != s.dim[i])
            return 0;
    return 1;
}

/* Whether a tensor has a dtype and shape. */
static int is(const ek_tensor *t, int dtype, shape s) { return t->dtype == dtype && fits(t, s); }

static int absent_or(const ek_tensor *t, int dtype, shape s) { return !t || is(t, dtype, s); }

static int is_f32(const ek_tensor *t) { return t->dtype == EK_F32; }

static int is_i8(const ek_tensor *t) { return t->dtype == EK_I8; }

/* Ops that move data move words of four bytes, or int8. */
static int is_moved(const ek_tensor *t) { return t->dtype == EK_F32 || t->dtype == EK_I32 || t->dtype == EK_I8; }

static int is_flag(int32_t x) { return x == 0 || x == 1; }

static int is_function(int32_t fn) { return fn >= EK_FN_IDENTITY && fn <= EK_FN_SQUARE; }

static int has_mask(int32_t fn) { return fn == EK_FN_RELU || fn == EK_FN_RELU6; }

static int64_t elements(const ek_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

/* A scale and zero point. Their values are not checked: kernels take any. */
static int is_quant(const ek_tensor *t) { return is(t, EK_F32, vector_shape(2)); }

/* Whether an operand is f32, or i8 with what says which numbers it stands for. */
static int is_real(const ek_tensor *t, const ek_tensor *parameters, int64_t size)
{
    return parameters ? is_i8(t) && is(parameters, EK_F32, vector_shape(size)) : is_f32(t);
}

/* The int8 result y and its mask. */
static const char *clamped(const operands *op, shape y)
{
    return is(op->out[0], EK_I8, y) && absent_or(op->out[1], EK_BITS, y) ? NULL : "the result's or mask's shape is wrong";
}

/* y, mask and pre of act(acc + bias + residual). */
static const char *epilogue(const operands *op, shape y, const ek_tensor *bias, const ek_tensor *residual, int32_t act)
{
    if (!is_function(act))
        return "the activation is unknown";
    if (!absent_or(bias, EK_F32, vector_shape(y.dim[y.rank - 1])))
        return "the bias does not fit the result";
    if (!absent_or(residual, EK_F32, y))
        return "the residual does not fit the result";
    if (!is(op->out[0], EK_F32, y))
        return "the result's shape is wrong";
    if (op->out[1] && !has_mask(act))
        return "only relu and relu6 have a mask";
    return absent_or(op->out[1], EK_BITS, y) && absent_or(op->out[2], EK_F32, y) ? NULL : "the mask's or pre's shape is wrong";
}

/* (acc + addend) * act'(saved). */
static const char *backward_epilogue(const operands *op, shape dx, int32_t act)
{
    const ek_tensor *addend = op->in[2], *saved = op->in[3];
    if (!is_function(act))
        return "the activation is unknown";
    if (!absent_or(addend, EK_F32, dx))
        return "the addend does not fit the result";
    if ((saved == NULL) != (act == EK_FN_IDENTITY))
        return "saved goes with an activation";
    if (saved && !is(saved, EK_F32, dx) && !(has_mask(act) && is(saved, EK_BITS, dx)))
        return "saved does not fit the result or its activation";
    return is(op->out[0], EK_F32, dx) ? NULL : "the result's shape is wrong";
}

static const char *linear(const operands *op)
{
    const ek_linear_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *w = op->in[1];
    if (!is_f32(x) || !is_f32(w) || x->rank < 1 || w->rank != 2 || last(x) != w->dim[0])
        return "x and w do not fit";
    return epilogue(op, with_last(x, w->dim[1]), op->in[2], op->in[3], a->act);
}

static const char *linear_input_grad(const operands *op)
{
    const ek_linear_input_grad_attrs *a = op->attrs;
    const ek_tensor *dy = op->in[0], *w = op->in[1];
    if (!is_f32(dy) || dy->rank < 1 || w->rank != 2 || last(dy) != w->dim[1] || !is_real(w, op->in[4], last(w)))
        return "dy, w and scale do not fit";
    return backward_epilogue(op, with_last(dy, w->dim[0]), a->act);
}

static const char *linear_weight_grad(const operands *op)
{
    const ek_tensor *x = op->in[0], *dy = op->in[1];
    if (!is_real(x, op->in[2], 2) || !is_f32(dy) || x->rank < 1 || x->rank != dy->rank || !fits(dy, with_last(x, last(dy))))
        return "x, quant and dy do not fit";
    if (!is(op->out[0], EK_F32, (shape){2, {last(x), last(dy)}}))
        return "dw's shape is wrong";
    return absent_or(op->out[1], EK_F32, vector_shape(last(dy))) ? NULL : "db's shape is wrong";
}

/* Places of a window along one axis, 0 where it does not fit or an attribute is out of range. */
static int64_t places(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t after, int64_t dilation)
{
    if (kernel < 1 || stride < 1 || stride > MAX_EXTENT || dilation < 1 || dilation > MAX_EXTENT || before <= -size || after <= -size)
        return 0;
    int64_t padded = size + before + after;
    int64_t span = padded - dilation * (kernel - 1) - 1;
    return size < 1 || padded > MAX_EXTENT || span < 0 ? 0 : span / stride + 1;
}

static int64_t at_least_0(int64_t n) { return n > 0 ? n : 0; }

/* Height and width of the result of sliding a window over [n, size, channels]; 0 where it does not fit. Negative padding leaves rows
 * or columns out. */
static int cropped_window(const ek_tensor *image, const int32_t *size, const int32_t *kernel, const int32_t *stride,
                          const int32_t *padding, const int32_t *dilation, int64_t out[2])
{
    for (int i = 0; i < 2; i++) {
        out[i] = places(size[i], kernel[i], stride[i], padding[2 * i], padding[2 * i + 1], dilation[i]);
        if (out[i] == 0)
            return 0;
    }
    /* A kernel may copy its input with the padding around it. */
    int64_t height = size[0] + at_least_0(padding[0]) + at_least_0(padding[1]), width = size[1] + at_least_0(padding[2]) + at_least_0(padding[3]);
    int64_t area = height * width, depth = (int64_t)image->dim[0] * image->dim[3];
    return area <= INT32_MAX && depth <= INT32_MAX && area * depth <= INT32_MAX;
}

/* The same without leaving anything out. */
static int window(const ek_tensor *image, const int32_t *size, const int32_t *kernel, const int32_t *stride, const int32_t *padding,
                  const int32_t *dilation, int64_t out[2])
{
    for (int i = 0; i < 4; i++)
        if (padding[i] < 0)
            return 0;
    return cropped_window(image, size, kernel, stride, padding, dilation, out);
}

static const int32_t NO_DILATION[2] = {1, 1};
static const char BAD_WINDOW[] = "the window does not fit the input, or is too large";

/* The spatial axes of an NHWC tensor. */
typedef struct {
    int32_t of[2];
} extent;

static extent spatial(const ek_tensor *t) { return (extent){{(int32_t)t->dim[1], (int32_t)t->dim[2]}}; }

static shape image_shape(const ek_tensor *like, int64_t height, int64_t width, int64_t channels)
{
    return (shape){4, {like->dim[0], height, width, channels}};
}

/* Multiply-adds: each of `results` is a sum over `taps` products. */
static int too_much_work(int64_t results, int64_t taps) { return results > MAX_WORK / taps; }

/* Winograd's algorithm needs the window of its formula, and whole vectors of channels. */
static const char *convolution_algorithm(int32_t algorithm, extent kernel, const int32_t *stride, const int32_t *dilation,
                                         int32_t groups, uint32_t channels)
{
    if (algorithm < EK_ALGORITHM_AUTO || algorithm > EK_ALGORITHM_WINOGRAD)
        return "the algorithm is unknown";
    int fits = groups == 1 && channels % 16 == 0;
    for (int i = 0; i < 2; i++)
        fits = fits && kernel.of[i] == 3 && stride[i] == 1 && dilation[i] == 1;
    return algorithm != EK_ALGORITHM_WINOGRAD || fits ? NULL : "Winograd's algorithm does not fit";
}

static const char *conv2d(const operands *op)
{
    const ek_conv2d_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *w = op->in[1];
    int64_t out[2];
    if (!is_f32(x) || !is_f32(w) || x->rank != 4 || w->rank != 4)
        return "x and w must be f32 of rank 4";
    if (a->groups < 1 || x->dim[3] != (int64_t)w->dim[2] * a->groups || w->dim[3] % (uint32_t)a->groups != 0)
        return "x, w and the groups do not fit";
    extent size = spatial(x), kernel = {{(int32_t)w->dim[0], (int32_t)w->dim[1]}};
    if (!window(x, size.of, kernel.of, a->stride, a->padding, a->dilation, out))
        return BAD_WINDOW;
    const char *wrong = epilogue(op, image_shape(x, out[0], out[1], w->dim[3]), op->in[2], op->in[3], a->act);
    if (!wrong && too_much_work(elements(op->out[0]), elements(w)))
        return BAD_WINDOW;
    return wrong ? wrong : convolution_algorithm(a->algorithm, kernel, a->stride, a->dilation, a->groups, x->dim[3]);
}

static const char *conv2d_input_grad(const operands *op)
{
    const ek_conv2d_input_grad_attrs *a = op->attrs;
    const ek_tensor *dy = op->in[0], *w = op->in[1], *dx = op->out[0];
    int64_t out[2];
    if (!is_f32(dy) || dy->rank != 4 || w->rank != 4 || dx->rank != 4 || dy->dim[3] != w->dim[3] ||
        !is_real(w, op->in[4], last(w)))
        return "dy, w and scale do not fit";
    if (a->groups < 1 || w->dim[3] % (uint32_t)a->groups != 0)
        return "w and the groups do not fit";
    extent kernel = {{(int32_t)w->dim[0], (int32_t)w->dim[1]}};
    if (!window(dx, a->size, kernel.of, a->stride, a->padding, a->dilation, out) || too_much_work(elements(dx), elements(w)) ||
        too_much_work(elements(dy), elements(w)))
        return BAD_WINDOW;
    if (!fits(dy, image_shape(dy, out[0], out[1], dy->dim[3])))
        return "dy does not fit the size";
    const char *wrong = convolution_algorithm(a->algorithm, kernel, a->stride, a->dilation, a->groups, dy->dim[3]);
    return wrong ? wrong : backward_epilogue(op, image_shape(dy, a->size[0], a->size[1], (int64_t)w->dim[2] * a->groups), a->act);
}

static const char *conv2d_weight_grad(const operands *op)
{
    const ek_conv2d_weight_grad_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *dy = op->in[1], *dw = op->out[0];
    int64_t out[2];
    if (!is_real(x, op->in[2], 2) || !is_f32(dy) || x->rank != 4 || dy->rank != 4 || x->dim[0] != dy->dim[0])
        return "x, quant and dy do not fit";
    if (a->groups < 1 || x->dim[3] % (uint32_t)a->groups != 0 || dy->dim[3] % (uint32_t)a->groups != 0)
        return "x, dy and the groups do not fit";
    if (!window(x, spatial(x).of, a->kernel, a->stride, a->padding, a->dilation, out) || too_much_work(elements(dy), elements(dw)))
        return BAD_WINDOW;
    if (!fits(dy, image_shape(x, out[0], out[1], dy->dim[3])))
        return "dy does not fit x";
    if (!is(dw, EK_F32, (shape){4, {a->kernel[0], a->kernel[1], x->dim[3] / (uint32_t)a->groups, dy->dim[3]}}))
        return "dw's shape is wrong";
    if (!absent_or(op->out[1], EK_F32, vector_shape(dy->dim[3])))
        return "db's shape is wrong";
    extent kernel = {{a->kernel[0], a->kernel[1]}};
    /* Both are multiples of 16 if all their bits together are. */
    return convolution_algorithm(a->algorithm, kernel, a->stride, a->dilation, a->groups, x->dim[3] | dy->dim[3]);
}

static const char *unary(const operands *op)
{
    const ek_unary_attrs *a = op->attrs;
    shape x = shape_of(op->in[0]);
    if (!is_function(a->fn))
        return "the function is unknown";
    if (!is_f32(op->in[0]) || !is(op->out[0], EK_F32, x))
        return "x and y do not fit";
    if (op->out[1] && !has_mask(a->fn))
        return "only relu and relu6 have a mask";
    return absent_or(op->out[1], EK_BITS, x) ? NULL : "the mask's shape is wrong";
}

static const char *unary_grad(const operands *op)
{
    const ek_unary_grad_attrs *a = op->attrs;
    shape dy = shape_of(op->in[0]);
    if (!is_function(a->fn))
        return "the function is unknown";
    return is_f32(op->in[0]) && is(op->in[1], EK_F32, dy) && is(op->out[0], EK_F32, dy) ? NULL : "dy, saved and dx do not fit";
}

static const char *apply_mask(const operands *op)
{
    const ek_apply_mask_attrs *a = op->attrs;
    shape x = shape_of(op->in[0]);
    if (!isfinite(a->scale))
        return "the scale is not finite";
    return is_f32(op->in[0]) && is(op->in[1], EK_BITS, x) && is(op->out[0], EK_F32, x) ? NULL : "x, mask and y do not fit";
}

static const char *dropout(const operands *op)
{
    const ek_dropout_attrs *a = op->attrs;
    shape x = shape_of(op->in[0]);
    if (!(a->p >= 0 && a->p < 1))
        return "p is not in [0, 1)";
    if (!is(op->in[1], EK_I32, vector_shape(2)))
        return "step is not i32[2]";
    return is_f32(op->in[0]) && is(op->out[0], EK_F32, x) && absent_or(op->out[1], EK_BITS, x) ? NULL : "x, y and mask do not fit";
}

/* Axis i of an array seen with `rank` axes, the missing leading ones being 1. */
static int64_t dim_from_right(const shape *s, int rank, int i)
{
    int own = i - (rank - s->rank);
    return own < 0 ? 1 : s->dim[own];
}

/* NumPy's broadcasting of two shapes. */
static int broadcast(const shape *a, const shape *b, shape *y)
{
    y->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 0; i < y->rank; i++) {
        int64_t m = dim_from_right(a, y->rank, i), n = dim_from_right(b, y->rank, i);
        if (m != n && m != 1 && n != 1)
            return 0;
        y->dim[i] = m == 1 ? n : m;
    }
    return 1;
}

static const char *binary(const operands *op)
{
    const ek_binary_attrs *a = op->attrs;
    shape left = shape_of(op->in[0]), right = shape_of(op->in[1]), y;
    if (a->fn < EK_BINARY_ADD || a->fn > EK_BINARY_MINIMUM)
        return "the function is unknown";
    if (!is_f32(op->in[0]) || !is_f32(op->in[1]) || !broadcast(&left, &right, &y))
        return "a and b do not broadcast";
    return is(op->out[0], EK_F32, y) ? NULL : "the result's shape is wrong";
}

static const char *affine(const operands *op)
{
    const ek_affine_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (!is_f32(x) || x->rank < 1)
        return "x must be f32 with a channel axis";
    if (!is(op->in[1], EK_F32, vector_shape(last(x))) || !is(op->in[2], EK_F32, vector_shape(last(x))))
        return "scale or shift do not fit x";
    return epilogue(op, shape_of(x), NULL, NULL, a->act);
}

static const char *reduce(const operands *op)
{
    const ek_reduce_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (a->fn < EK_REDUCE_SUM || a->fn > EK_REDUCE_MAX || !is_flag(a->keepdims))
        return "the reduction is unknown";
    if (!is_f32(x) || a->axes <= 0 || a->axes >= 1 << x->rank)
        return "the axes do not fit x";
    shape y = {0, {0}};
    for (int i = 0; i < x->rank; i++) {
        int reduced = a->axes >> i & 1;
        if (!reduced || a->keepdims)
            y.dim[y.rank++] = reduced ? 1 : x->dim[i];
    }
    return is(op->out[0], EK_F32, y) ? NULL : "the result's shape is wrong";
}

static const char *expand(const operands *op)
{
    const ek_expand_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (!is_moved(x) || a->rank < 0 || a->rank > EK_MAX_RANK)
        return "x or the rank are out of range";
    shape to = {a->rank, {0}}, from = shape_of(x), both;
    for (int i = 0; i < EK_MAX_RANK; i++) {
        int own = i - (EK_MAX_RANK - a->rank);
        if (own >= 0)
            to.dim[own] = a->shape[i];
        else if (a->shape[i] != 1)
            return "the shape's leading entries are not 1";
    }
    if (!broadcast(&from, &to, &both) || both.rank != to.rank || memcmp(both.dim, to.dim, (size_t)to.rank * sizeof *to.dim) != 0)
        return "x does not broadcast to the shape";
    return is(op->out[0], x->dtype, to) ? NULL : "the result's shape is wrong";
}

static const char *permute(const operands *op)
{
    const ek_permute_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    shape y = {x->rank, {0}};
    int seen = 0;
    for (int i = 0; i < EK_MAX_RANK; i++) {
        if (i >= x->rank && a->perm[i] != -1)
            return "the permutation is longer than x's rank";
        if (i >= x->rank)
            continue;
        if (a->perm[i] < 0 || a->perm[i] >= x->rank || seen >> a->perm[i] & 1)
            return "the permutation is none";
        seen |= 1 << a->perm[i];
        y.dim[i] = x->dim[a->perm[i]];
    }
    return is_moved(x) && is(op->out[0], x->dtype, y) ? NULL : "x and y do not fit";
}

/* A view; it appears only where the compiler could not give it x's place. */
static const char *reshape(const operands *op)
{
    const ek_reshape_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *y = op->out[0];
    if (a->rank < 0 || a->rank > EK_MAX_RANK)
        return "the rank is out of range";
    shape to = {a->rank, {0}};
    for (int i = 0; i < EK_MAX_RANK; i++) {
        if (i < a->rank)
            to.dim[i] = a->shape[i];
        else if (a->shape[i] != 1)
            return "the shape's entries past the rank are not 1";
    }
    if (!is(y, x->dtype, to) || elements(x) != elements(y))
        return "x and y do not fit";
    return x->bytes == y->bytes ? NULL : "rows of bits cannot be reshaped to other rows";
}

/* x with one axis of another size. */
static shape with_axis(const ek_tensor *x, int axis, int64_t size)
{
    shape s = shape_of(x);
    s.dim[axis] = size;
    return s;
}

static const char *slice(const operands *op)
{
    const ek_slice_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (!is_moved(x) || a->axis < 0 || a->axis >= x->rank || a->step < 1 || a->length < 1 || a->start < 0)
        return "the slice is out of range";
    if (a->start + (int64_t)(a->length - 1) * a->step >= x->dim[a->axis])
        return "the slice ends past the axis";
    return is(op->out[0], x->dtype, with_axis(x, a->axis, a->length)) ? NULL : "the result's shape is wrong";
}

static const char *unslice(const operands *op)
{
    const ek_unslice_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (!is_moved(x) || a->axis < 0 || a->axis >= x->rank || a->step < 1 || a->start < 0)
        return "the slice is out of range";
    if (a->start + (int64_t)(x->dim[a->axis] - 1) * a->step >= a->size)
        return "the slice ends past the axis";
    return is(op->out[0], x->dtype, with_axis(x, a->axis, a->size)) ? NULL : "the result's shape is wrong";
}

static const char *concat(const operands *op)
{
    const ek_concat_attrs *a = op->attrs;
    const ek_tensor *first = op->in[0];
    int64_t total = 0;
    if (!is_moved(first) || a->axis < 0 || a->axis >= first->rank)
        return "the axis is out of range";
    for (int i = 0; i < EK_MAX_IN; i++) {
        const ek_tensor *part = op->in[i];
        if (!part)
            continue;
        if (part->rank != first->rank || !is(part, first->dtype, with_axis(first, a->axis, part->dim[a->axis])))
            return "the parts do not fit";
        total += part->dim[a->axis];
    }
    return is(op->out[0], first->dtype, with_axis(first, a->axis, total)) ? NULL : "the result's shape is wrong";
}

static const char *max_pool2d(const operands *op)
{
    const ek_max_pool2d_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    int64_t out[2];
    if (!is_f32(x) || x->rank != 4)
        return "x must be f32 of rank 4";
    if (!window(x, spatial(x).of, a->kernel, a->stride, a->padding, a->dilation, out))
        return BAD_WINDOW;
    if ((int64_t)a->kernel[0] * a->kernel[1] > 256)
        return "the window has more than 256 places";
    shape y = image_shape(x, out[0], out[1], x->dim[3]);
    return is(op->out[0], EK_F32, y) && absent_or(op->out[1], EK_U8, y) ? NULL : "y's or the index's shape is wrong";
}

static const char *max_pool2d_grad(const operands *op)
{
    const ek_max_pool2d_grad_attrs *a = op->attrs;
    const ek_tensor *dy = op->in[0], *dx = op->out[0];
    int64_t out[2];
    if (!is_f32(dy) || dy->rank != 4 || !is(op->in[1], EK_U8, shape_of(dy)))
        return "dy and index do not fit";
    if (!is(dx, EK_F32, image_shape(dy, a->size[0], a->size[1], dy->dim[3])))
        return "the result's shape is wrong";
    if (!window(dx, a->size, a->kernel, a->stride, a->padding, a->dilation, out))
        return BAD_WINDOW;
    if ((int64_t)a->kernel[0] * a->kernel[1] > 256)
        return "the window has more than 256 places";
    return fits(dy, image_shape(dy, out[0], out[1], dy->dim[3])) ? NULL : "dy does not fit the size";
}

static const char *avg_pool2d(const operands *op)
{
    const ek_avg_pool2d_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *y = op->out[0];
    int64_t out[2];
    if (!is_f32(x) || x->rank != 4 || !is_flag(a->count_padding))
        return "x must be f32 of rank 4, count_padding 0 or 1";
    if (!window(x, spatial(x).of, a->kernel, a->stride, a->padding, NO_DILATION, out))
        return BAD_WINDOW;
    return is(y, EK_F32, image_shape(x, out[0], out[1], x->dim[3])) ? NULL : "the result's shape is wrong";
}

static const char *avg_pool2d_grad(const operands *op)
{
    const ek_avg_pool2d_grad_attrs *a = op->attrs;
    const ek_tensor *dy = op->in[0], *dx = op->out[0];
    int64_t out[2];
    if (!is_f32(dy) || dy->rank != 4 || !is_flag(a->count_padding))
        return "dy must be f32 of rank 4, count_padding 0 or 1";
    if (!is(dx, EK_F32, image_shape(dy, a->size[0], a->size[1], dy->dim[3])))
        return "the result's shape is wrong";
    if (!window(dx, a->size, a->kernel, a->stride, a->padding, NO_DILATION, out))
        return BAD_WINDOW;
    return fits(dy, image_shape(dy, out[0], out[1], dy->dim[3])) ? NULL : "dy does not fit the size";
}

/* Bins run from floor(i in / out) to ceil((i + 1) in / out): the products must fit an int32_t. */
static int bins_fit(int64_t in, int64_t out) { return in >= 1 && out >= 1 && (out + 1) * (in + 1) <= INT32_MAX; }

static const char *adaptive_avg_pool2d(const operands *op)
{
    const ek_adaptive_avg_pool2d_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (!is_f32(x) || x->rank != 4 || !bins_fit(x->dim[1], a->output[0]) || !bins_fit(x->dim[2], a->output[1]))
        return "x or the output size are out of range";
    return is(op->out[0], EK_F32, image_shape(x, a->output[0], a->output[1], x->dim[3])) ? NULL : "the result's shape is wrong";
}

static const char *adaptive_avg_pool2d_grad(const operands *op)
{
    const ek_adaptive_avg_pool2d_grad_attrs *a = op->attrs;
    const ek_tensor *dy = op->in[0];
    if (!is_f32(dy) || dy->rank != 4 || !bins_fit(a->size[0], dy->dim[1]) || !bins_fit(a->size[1], dy->dim[2]))
        return "dy or the size are out of range";
    return is(op->out[0], EK_F32, image_shape(dy, a->size[0], a->size[1], dy->dim[3])) ? NULL : "the result's shape is wrong";
}

static const char *targets_fit(const ek_tensor *scores, const ek_tensor *targets)
{
    if (!is_f32(scores) || scores->rank < 1 || !is(targets, EK_I32, without_last(scores)))
        return "scores and targets do not fit";
    return NULL;
}

static int is_loss_reduction(int32_t reduction) { return reduction == EK_REDUCE_SUM || reduction == EK_REDUCE_MEAN; }

static int is_smoothing(float smoothing) { return smoothing >= 0 && smoothing <= 1; }

static const char *cross_entropy(const operands *op)
{
    const ek_cross_entropy_attrs *a = op->attrs;
    const char *wrong = targets_fit(op->in[0], op->in[1]);
    if (wrong)
        return wrong;
    if (!is_loss_reduction(a->reduction) || !is_smoothing(a->smoothing))
        return "the reduction or smoothing is out of range";
    return is(op->out[0], EK_F32, scalar_shape()) ? NULL : "the loss is no scalar";
}

static const char *cross_entropy_grad(const operands *op)
{
    const ek_cross_entropy_grad_attrs *a = op->attrs;
    const char *wrong = targets_fit(op->in[0], op->in[1]);
    if (wrong)
        return wrong;
    if (!is_loss_reduction(a->reduction) || !is_smoothing(a->smoothing))
        return "the reduction or smoothing is out of range";
    if (!is(op->in[2], EK_F32, scalar_shape()))
        return "dloss is no scalar";
    return is(op->out[0], EK_F32, shape_of(op->in[0])) ? NULL : "the result's shape is wrong";
}

static const char *softmax(const operands *op)
{
    const ek_softmax_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0];
    if (!is_flag(a->log))
        return "log is neither 0 nor 1";
    return is_f32(x) && x->rank >= 1 && is(op->out[0], EK_F32, shape_of(x)) ? NULL : "x and y do not fit";
}

static const char *softmax_grad(const operands *op)
{
    const ek_softmax_grad_attrs *a = op->attrs;
    const ek_tensor *dy = op->in[0];
    shape s = shape_of(dy);
    if (!is_flag(a->log))
        return "log is neither 0 nor 1";
    return is_f32(dy) && dy->rank >= 1 && is(op->in[1], EK_F32, s) && is(op->out[0], EK_F32, s) ? NULL : "dy, y and dx do not fit";
}

static const char *nll_loss(const operands *op)
{
    const ek_nll_loss_attrs *a = op->attrs;
    const char *wrong = targets_fit(op->in[0], op->in[1]);
    if (wrong)
        return wrong;
    if (!is_loss_reduction(a->reduction))
        return "the reduction is out of range";
    return is(op->out[0], EK_F32, scalar_shape()) ? NULL : "the loss is no scalar";
}

static const char *nll_loss_grad(const operands *op)
{
    const ek_nll_loss_grad_attrs *a = op->attrs;
    if (!is_loss_reduction(a->reduction))
        return "the reduction is out of range";
    if (!is(op->in[1], EK_F32, scalar_shape()))
        return "dloss is no scalar";
    const char *wrong = targets_fit(op->out[0], op->in[0]);
    if (wrong)
        return wrong;
    return last(op->out[0]) == a->classes ? NULL : "the result's shape is wrong";
}

static const char *argmax_match(const operands *op)
{
    const char *wrong = targets_fit(op->in[0], op->in[1]);
    if (wrong)
        return wrong;
    return is(op->out[0], EK_U8, shape_of(op->in[1])) ? NULL : "the result's shape is wrong";
}

/* A vector over the gradient's last axis, or an array of its shape. */
static int per_channel(const ek_tensor *grad, const ek_tensor *vector)
{
    shape whole = shape_of(grad);
    shape channels = grad->rank > 0 ? vector_shape(last(grad)) : whole;
    return absent_or(vector, EK_F32, channels) || absent_or(vector, EK_F32, whole);
}

static const char *sgd_update(const operands *op)
{
    const ek_sgd_update_attrs *a = op->attrs;
    const ek_tensor *param = op->in[0], *grad = op->in[1], *velocity = op->in[2];
    if (!isfinite(a->lr) || !isfinite(a->momentum) || !isfinite(a->weight_decay) || !is_flag(a->nesterov))
        return "an attribute is out of range";
    const ek_tensor *scale = op->in[6], *step = op->in[7];
    int whole = param->dtype == EK_I8 || param->dtype == EK_I32;
    if ((!whole && !is_f32(param)) || !is_f32(grad) || param->rank != grad->rank)
        return "param and grad do not fit";
    if ((scale != NULL) != whole || (step != NULL) != whole)
        return "scale and step go with integers";
    if (whole && (param->rank < 1 || !is(scale, EK_F32, vector_shape(last(param))) || !is(step, EK_I32, vector_shape(2))))
        return "scale or step do not fit param";
    for (int i = 0; i < grad->rank; i++)
        if (grad->dim[i] > param->dim[i])
            return "grad is no leading block of param";
    int64_t room = grad->rank > 1 ? (int64_t)param->dim[grad->rank - 2] - grad->dim[grad->rank - 2] : 0;
    if (a->start < 0 || a->start > room)
        return "grad's block ends past param";
    if ((velocity == NULL) != (a->momentum == 0))
        return "velocity goes with momentum";
    if (!absent_or(velocity, EK_F32, shape_of(grad)))
        return "velocity does not fit grad";
    if (!per_channel(grad, op->in[3]) || !per_channel(grad, op->in[4]))
        return "factor or offset do not fit grad";
    return absent_or(op->in[5], EK_F32, scalar_shape()) ? NULL : "clip is no scalar";
}

static const char *linear_sgd(const operands *op)
{
    const ek_linear_sgd_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *dy = op->in[1], *param = op->in[2], *velocity = op->in[3];
    if (!isfinite(a->lr) || !isfinite(a->momentum) || !isfinite(a->weight_decay) || !is_flag(a->nesterov))
        return "an attribute is out of range";
    if (!is_f32(x) || !is_f32(dy) || x->rank < 1 || x->rank != dy->rank || !fits(dy, with_last(x, last(dy))))
        return "x and dy do not fit";
    if (!is_f32(param) || param->rank < 2 || last(param) != last(dy) || param->dim[param->rank - 2] < last(x))
        return "param does not fit";
    for (int i = 0; i + 2 < param->rank; i++)
        if (param->dim[i] != 1)
            return "param is no matrix";
    shape grad = with_last(param, last(dy));
    grad.dim[grad.rank - 2] = last(x);
    if ((velocity == NULL) != (a->momentum == 0))
        return "velocity goes with momentum";
    if (!absent_or(velocity, EK_F32, grad))
        return "velocity does not fit the gradient";
    for (int i = 4; i < 6; i++)
        if (!absent_or(op->in[i], EK_F32, vector_shape(last(dy))))
            return "factor or offset do not fit the gradient";
    return absent_or(op->out[0], EK_F32, vector_shape(last(dy))) ? NULL : "db's shape is wrong";
}

static const char *accumulate(const operands *op)
{
    return is_f32(op->in[0]) && is(op->in[1], EK_F32, shape_of(op->in[0])) ? NULL : "total and value do not fit";
}

static const char *fill(const operands *op)
{
    const ek_fill_attrs *a = op->attrs;
    return is_f32(op->in[0]) && isfinite(a->value) ? NULL : "the target is not f32, or the value is not finite";
}

static const char *sum_squares(const operands *op)
{
    if (!is_f32(op->in[0]) || !per_channel(op->in[0], op->in[1]))
        return "grad and factor do not fit";
    if (!absent_or(op->in[2], EK_F32, scalar_shape()))
        return "previous is no scalar";
    return is(op->out[0], EK_F32, scalar_shape()) ? NULL : "total is no scalar";
}

static const char *clip_coefficient(const operands *op)
{
    const ek_clip_coefficient_attrs *a = op->attrs;
    if (!isfinite(a->max_norm))
        return "max_norm is not finite";
    return is(op->in[0], EK_F32, scalar_shape()) && is(op->out[0], EK_F32, scalar_shape()) ? NULL : "total or coefficient is no scalar";
}

static const char *quantize(const operands *op)
{
    return is_f32(op->in[0]) && is_quant(op->in[1]) ? clamped(op, shape_of(op->in[0])) : "x and quant do not fit";
}

static const char *dequantize(const operands *op)
{
    int good = is_i8(op->in[0]) && is_quant(op->in[1]) && is(op->out[0], EK_F32, shape_of(op->in[0]));
    return good ? NULL : "x, quant and y do not fit";
}

static const char *q_conv2d(const operands *op)
{
    enum { MOST_TERMS = 1 << 16 }; /* 2^16 * 255 * 127 < 2^31 */
    const ek_q_conv2d_attrs *a = op->attrs;
    const ek_tensor *x = op->in[0], *w = op->in[1], *rest = op->in[6];
    int64_t out[2];
    if (!is_i8(x) || !is_i8(w) || x->rank != 4 || w->rank != 4)
        return "x and w must be i8 of rank 4";
    if (rest && (!is_i8(rest) || rest->rank != 4 || rest->dim[0] != w->dim[0] || rest->dim[1] != w->dim[1] || rest->dim[3] != w->dim[3] ||
                 a->groups != 1))
        return "w and its rest do not fit";
    int64_t channels = (int64_t)w->dim[2] + (rest ? rest->dim[2] : 0), terms = (elements(w) + (rest ? elements(rest) : 0)) / w->dim[3];
    int dense = a->groups == 1 && x->dim[3] == channels;
    int depthwise = a->groups > 0 && x->dim[3] == (uint32_t)a->groups && w->dim[3] == (uint32_t)a->groups && w->dim[2] == 1;
    if ((!dense && !depthwise) || terms > MOST_TERMS)
        return "x, w and the groups do not fit";
    if (!is(op->in[2], EK_F32, vector_shape(last(w))) || !absent_or(op->in[5], EK_I32, vector_shape(last(w))))
        return "the scale or the bias do not fit w";
    if (!is_flag(a->real) || (op->in[4] != NULL) == a->real || !is_quant(op->in[3]) || (op->in[4] && !is_quant(op->in[4])))
        return "the scales and zero points are wrong";
    extent size = spatial(x), kernel = {{(int32_t)w->dim[0], (int32_t)w->dim[1]}};
    int fitting = (dense ? cropped_window : window)(x, size.of, kernel.of, a->stride, a->padding, a->dilation, out);
    if (!fitting)
        return BAD_WINDOW;
    shape y = image_shape(x, out[0], out[1], w->dim[3]);
    const char *wrong = a->real ? is(op->out[0], EK_F32, y) && !op->out[1] ? NULL : "the result is wrong" : clamped(op, y);
    return !wrong && too_much_work(elements(op->out[0]), terms * w->dim[3]) ? BAD_WINDOW : wrong;
}

static const char *q_add(const operands *op)
{
    shape y = shape_of(op->in[0]);
    if (!is_i8(op->in[0]) || !is(op->in[1], EK_I8, y) || !is_quant(op->in[2]) || !is_quant(op->in[3]) || !is_quant(op->in[4]))
        return "a, b and their scales do not fit";
    return clamped(op, y);
}

static const char *q_mean(const operands *op)
{
    enum { MOST_PIXELS = 1 << 22 }; /* 2^22 * 255 < 2^31 */
    const ek_tensor *x = op->in[0];
    if (!is_i8(x) || x->rank != 4 || (int64_t)x->dim[1] * x->dim[2] > MOST_PIXELS || !is_quant(op->in[1]) || !is_quant(op->in[2]))
        return "x and the scales do not fit";
    return clamped(op, image_shape(x, 1, 1, x->dim[3]));
}

#define WORDS(name) sizeof(ek_##name##_attrs) / 4

static const signature SIGNATURES[EK_OPCODES] = {
    [EK_OP_LINEAR] = {"linear", linear, 4, 2, 3, 1, WORDS(linear), 0},
    [EK_OP_LINEAR_INPUT_GRAD] = {"linear_input_grad", linear_input_grad, 5, 2, 1, 1, WORDS(linear_input_grad), 0},
    [EK_OP_LINEAR_WEIGHT_GRAD] = {"linear_weight_grad", linear_weight_grad, 3, 2, 2, 1, 0, 0},
    [EK_OP_CONV2D] = {"conv2d", conv2d, 4, 2, 3, 1, WORDS(conv2d), 0},
    [EK_OP_CONV2D_INPUT_GRAD] = {"conv2d_input_grad", conv2d_input_grad, 5, 2, 1, 1, WORDS(conv2d_input_grad), 0},
    [EK_OP_CONV2D_WEIGHT_GRAD] = {"conv2d_weight_grad", conv2d_weight_grad, 3, 2, 2, 1, WORDS(conv2d_weight_grad), 0},
    [EK_OP_UNARY] = {"unary", unary, 1, 1, 2, 1, WORDS(unary), 0},
    [EK_OP_UNARY_GRAD] = {"unary_grad", unary_grad, 2, 2, 1, 1, WORDS(unary_grad), 0},
    [EK_OP_APPLY_MASK] = {"apply_mask", apply_mask, 2, 2, 1, 1, WORDS(apply_mask), 0},
    [EK_OP_DROPOUT] = {"dropout", dropout, 2, 2, 2, 1, WORDS(dropout), 0},
    [EK_OP_BINARY] = {"binary", binary, 2, 2, 1, 1, WORDS(binary), 0},
    [EK_OP_AFFINE] = {"affine", affine, 3, 3, 3, 1, WORDS(affine), 0},
    [EK_OP_REDUCE] = {"reduce", reduce, 1, 1, 1, 1, WORDS(reduce), 0},
    [EK_OP_EXPAND] = {"expand", expand, 1, 1, 1, 1, WORDS(expand), 0},
    [EK_OP_PERMUTE] = {"permute", permute, 1, 1, 1, 1, WORDS(permute), 0},
    [EK_OP_RESHAPE] = {"reshape", reshape, 1, 1, 1, 1, WORDS(reshape), 0},
    [EK_OP_SLICE] = {"slice", slice, 1, 1, 1, 1, WORDS(slice), 0},
    [EK_OP_UNSLICE] = {"unslice", unslice, 1, 1, 1, 1, WORDS(unslice), 0},
    [EK_OP_CONCAT] = {"concat", concat, 8, 2, 1, 1, WORDS(concat), 0},
    [EK_OP_MAX_POOL2D] = {"max_pool2d", max_pool2d, 1, 1, 2, 1, WORDS(max_pool2d), 0},
    [EK_OP_MAX_POOL2D_GRAD] = {"max_pool2d_grad", max_pool2d_grad, 2, 2, 1, 1, WORDS(max_pool2d_grad), 0},
    [EK_OP_AVG_POOL2D] = {"avg_pool2d", avg_pool2d, 1, 1, 1, 1, WORDS(avg_pool2d), 0},
    [EK_OP_AVG_POOL2D_GRAD] = {"avg_pool2d_grad", avg_pool2d_grad, 1, 1, 1, 1, WORDS(avg_pool2d_grad), 0},
    [EK_OP_ADAPTIVE_AVG_POOL2D] = {"adaptive_avg_pool2d", adaptive_avg_pool2d, 1, 1, 1, 1, WORDS(adaptive_avg_pool2d), 0},
    [EK_OP_ADAPTIVE_AVG_POOL2D_GRAD] = {"adaptive_avg_pool2d_grad", adaptive_avg_pool2d_grad, 1, 1, 1, 1,
                                        WORDS(adaptive_avg_pool2d_grad), 0},
    [EK_OP_CROSS_ENTROPY] = {"cross_entropy", cross_entropy, 2, 2, 1, 1, WORDS(cross_entropy), 0},
    [EK_OP_CROSS_ENTROPY_GRAD] = {"cross_entropy_grad", cross_entropy_grad, 3, 3, 1, 1, WORDS(cross_entropy_grad), 0},
    [EK_OP_SOFTMAX] = {"softmax", softmax, 1, 1, 1, 1, WORDS(softmax), 0},
    [EK_OP_SOFTMAX_GRAD] = {"softmax_grad", softmax_grad, 2, 2, 1, 1, WORDS(softmax_grad), 0},
    [EK_OP_NLL_LOSS] = {"nll_loss", nll_loss, 2, 2, 1, 1, WORDS(nll_loss), 0},
    [EK_OP_NLL_LOSS_GRAD] = {"nll_loss_grad", nll_loss_grad, 2, 2, 1, 1, WORDS(nll_loss_grad), 0},
    [EK_OP_ARGMAX_MATCH] = {"argmax_match", argmax_match, 2, 2, 1, 1, WORDS(argmax_match), 0},
    [EK_OP_SGD_UPDATE] = {"sgd_update", sgd_update, 8, 2, 0, 0, WORDS(sgd_update), BIT_0 | BIT_2},
    [EK_OP_ACCUMULATE] = {"accumulate", accumulate, 2, 2, 0, 0, 0, BIT_0},
    [EK_OP_FILL] = {"fill", fill, 1, 1, 0, 0, WORDS(fill), BIT_0},
    [EK_OP_SUM_SQUARES] = {"sum_squares", sum_squares, 3, 1, 1, 1, 0, 0},
    [EK_OP_CLIP_COEFFICIENT] = {"clip_coefficient", clip_coefficient, 1, 1, 1, 1, WORDS(clip_coefficient), 0},
    [EK_OP_LINEAR_SGD] = {"linear_sgd", linear_sgd, 6, 3, 1, 0, WORDS(linear_sgd), BIT_2 | BIT_3},
    [EK_OP_QUANTIZE] = {"quantize", quantize, 2, 2, 2, 1, 0, 0},
    [EK_OP_DEQUANTIZE] = {"dequantize", dequantize, 2, 2, 1, 1, 0, 0},
    [EK_OP_Q_CONV2D] = {"q_conv2d", q_conv2d, 7, 4, 2, 1, WORDS(q_conv2d), 0},
    [EK_OP_Q_ADD] = {"q_add", q_add, 5, 5, 2, 1, 0, 0},
    [EK_OP_Q_MEAN] = {"q_mean", q_mean, 3, 3, 2, 1, 0, 0},
};

/* Look the `count` tensors of an op up. What is wrong, or NULL. */
static const char *resolve(const ek_program *program, const uint16_t *numbers, int slots, int known, int required,
                           const ek_tensor **tensors)
{
    for (int i = 0; i < slots; i++) {
        tensors[i] = NULL;
        if (numbers[i] == EK_ABSENT) {
            if (i < required)
                return "an operand or result is missing";
            continue;
        }
        if (i >= known)
            return "there are too many operands or results";
        if (numbers[i] >= program->header->tensors)
            return "an operand or result is no tensor of the program";
        tensors[i] = &program->tensors[numbers[i]];
    }
    return NULL;
}

/* A reshape may be a view of anything; other results belong into the arena. Only the state is written in place. */
static const char *check_storage(const ek_op *op, const signature *signature, const operands *resolved)
{
    for (int i = 0; i < EK_MAX_OUT; i++) {
        const ek_tensor *out = resolved->out[i];
        if (!out || out->storage == EK_ARENA)
            continue;
        const ek_tensor *in = resolved->in[0];
        if (op->opcode != EK_OP_RESHAPE || out->storage != in->storage || out->offset != in->offset)
            return "a result is not in the arena";
    }
    for (int i = 0; i < EK_MAX_IN; i++)
        if (signature->mutates >> i & 1 && resolved->in[i] && resolved->in[i]->storage != EK_STATE)
            return "what it writes in place is not in the state";
    return NULL;
}

static const char *check(const ek_program *program, const ek_op *op, const signature *signature)
{
    operands resolved = {.attrs = op->attr};
    if (op->zero0 != 0)
        return "a field that must be zero is not";
    for (int i = signature->attr_words; i < EK_ATTR_WORDS; i++)
        if (op->attr[i] != 0)
            return "an attribute word past the last is not zero";
    const char *wrong = resolve(program, op->in, EK_MAX_IN, signature->in, signature->in_required, resolved.in);
    if (!wrong)
        wrong = resolve(program, op->out, EK_MAX_OUT, signature->out, signature->out_required, resolved.out);
    if (!wrong)
        wrong = check_storage(op, signature, &resolved);
    return wrong ? wrong : signature->rule(&resolved);
}

ek_status ek_check_op(const ek_program *program, uint32_t number, ek_error *error)
{
    const ek_op *op = &program->ops[number];
    const signature *signature = op->opcode < EK_OPCODES ? &SIGNATURES[op->opcode] : NULL;
    if (!signature || !signature->rule)
        return ek_fail(error, EK_UNSUPPORTED_OP, "op %u: opcode %u is unknown", number, op->opcode);
    const char *wrong = check(program, op, signature);
    return wrong ? ek_fail(error, EK_BAD_PROGRAM, "op %u (%s): %s", number, signature->name, wrong) : EK_OK;
}
