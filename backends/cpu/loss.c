/* Cross-entropy, negative log-likelihood, their gradients, and hits.
 *
 * As PyTorch: rows whose target is `ignore_index` count nowhere, and the mean over no rows is NaN (its gradient 0).
 * A target that is no class, which PyTorch refuses, makes the loss NaN and its row's gradient too: it must not pass
 * unseen. */
#include "softmax.h"

typedef struct {
    const ek_call *call;
    const int32_t *targets;
    size_t rows, classes;
    int32_t ignore_index;
    float smoothing;
    double weight;   /* of each counted row */
    double *partial; /* a thread's sum each */
} loss_job;

EK_INLINE int is_class(const loss_job *job, int32_t target) { return target >= 0 && (size_t)target < job->classes; }

static double row_weight(int32_t reduction, const int32_t *targets, size_t rows, int32_t ignore_index) {
    size_t counted = 0;
    if (reduction == EK_REDUCE_SUM) return 1.0;
    for (size_t i = 0; i < rows; i++) counted += targets[i] != ignore_index;
    return counted ? 1.0 / (double)counted : (double)NAN;
}

/* `targets` is the operand's number. */
static loss_job job_of(const ek_call *call, int targets, int32_t reduction, int32_t ignore_index) {
    loss_job job = {.call = call, .targets = call->in[targets], .ignore_index = ignore_index};
    job.rows = ek_elements(call->in_t[targets]);
    job.weight = row_weight(reduction, job.targets, job.rows, ignore_index);
    return job;
}

static double sum_of(const double *partial, int n) {
    double total = 0.0;
    for (int i = 0; i < n; i++) total += partial[i];
    return total;
}

static size_t partial_bytes(const ek_call *call, int threads) {
    (void)call;
    return (size_t)threads * sizeof(double);
}

/* lse - x[t], mixed with the mean of lse - x[j] over all classes. */
static double cross_entropy_row(const loss_job *job, const float *x, int32_t target) {
    if (!is_class(job, target)) return (double)NAN;
    float max = ek_row_max(x, job->classes);
    double log_sum = (double)max + log(ek_row_exp(x, max, NULL, job->classes));
    double loss = log_sum - x[target], all = 0.0;
    if (job->smoothing == 0.0f) return loss;
    for (size_t i = 0; i < job->classes; i++) all += log_sum - x[i];
    return (1.0 - (double)job->smoothing) * loss + (double)job->smoothing / (double)job->classes * all;
}

static void cross_entropy_part(void *context, int index, int count) {
    const loss_job *job = context;
    ek_range r = ek_share(job->rows, 1, index, count);
    double total = 0.0;
    for (size_t row = r.begin; row < r.end; row++) {
        const float *x = (const float *)job->call->in[EK_CROSS_ENTROPY_LOGITS] + row * job->classes;
        if (job->targets[row] != job->ignore_index) total += cross_entropy_row(job, x, job->targets[row]);
    }
    job->partial[index] = total;
}

static void cross_entropy(const ek_call *call) {
    const ek_cross_entropy_attrs *a = call->attrs;
    loss_job job = job_of(call, EK_CROSS_ENTROPY_TARGETS, a->reduction, a->ignore_index);
    job.classes = ek_columns(call->in_t[EK_CROSS_ENTROPY_LOGITS]), job.smoothing = a->smoothing;
    job.partial = call->scratch;
    size_t n = job.rows * job.classes;
    ek_parallel(call->pool, n, cross_entropy_part, &job);
    double total = sum_of(job.partial, ek_threads_for(call->pool, n));
    *(float *)call->out[EK_CROSS_ENTROPY_LOSS] = (float)(total * job.weight);
}

/* (softmax(x) - wanted) * scale; dx may be x. */
static void cross_entropy_grad_row(const loss_job *job, const float *x, int32_t target, float scale, float *dx) {
    size_t n = job->classes;
    if (!is_class(job, target)) scale = NAN;
    float max = ek_row_max(x, n), inverse = (float)(1.0 / ek_row_exp(x, max, dx, n));
    float spread = job->smoothing / (float)n;
    float hit = is_class(job, target) ? dx[target] * inverse - spread - (1.0f - job->smoothing) : 0.0f;
    for (size_t i = 0; i < n; i++) dx[i] = (dx[i] * inverse - spread) * scale;
    if (is_class(job, target)) dx[target] = hit * scale;
}

static void cross_entropy_grad_part(void *context, int index, int count) {
    const loss_job *job = context;
    const float *logits = job->call->in[EK_CROSS_ENTROPY_GRAD_LOGITS];
    const float *dloss = job->call->in[EK_CROSS_ENTROPY_GRAD_DLOSS];
    float *dlogits = job->call->out[EK_CROSS_ENTROPY_GRAD_DLOGITS], scale = (float)(*dloss * job->weight);
    ek_range r = ek_share(job->rows, 1, index, count);
    for (size_t row = r.begin; row < r.end; row++) {
        float *dx = dlogits + row * job->classes;
        if (job->targets[row] == job->ignore_index) memset(dx, 0, job->classes * sizeof *dx);
        else cross_entropy_grad_row(job, logits + row * job->classes, job->targets[row], scale, dx);
    }
}

static void cross_entropy_grad(const ek_call *call) {
    const ek_cross_entropy_grad_attrs *a = call->attrs;
    loss_job job = job_of(call, EK_CROSS_ENTROPY_GRAD_TARGETS, a->reduction, a->ignore_index);
    job.classes = ek_columns(call->in_t[EK_CROSS_ENTROPY_GRAD_LOGITS]), job.smoothing = a->smoothing;
    ek_parallel(call->pool, job.rows * job.classes, cross_entropy_grad_part, &job);
}

static void nll_loss(const ek_call *call) {
    const ek_nll_loss_attrs *a = call->attrs;
    const float *scores = call->in[EK_NLL_LOSS_SCORES];
    loss_job job = job_of(call, EK_NLL_LOSS_TARGETS, a->reduction, a->ignore_index);
    job.classes = ek_columns(call->in_t[EK_NLL_LOSS_SCORES]);
    double total = 0.0;
    for (size_t row = 0; row < job.rows; row++) {
        int32_t target = job.targets[row];
        if (target == job.ignore_index) continue;
        total -= is_class(&job, target) ? scores[row * job.classes + (size_t)target] : NAN;
    }
    *(float *)call->out[EK_NLL_LOSS_LOSS] = (float)(total * job.weight);
}

static void nll_loss_grad(const ek_call *call) {
    const ek_nll_loss_grad_attrs *a = call->attrs;
    const float *dloss = call->in[EK_NLL_LOSS_GRAD_DLOSS];
    float *dscores = call->out[EK_NLL_LOSS_GRAD_DSCORES];
    loss_job job = job_of(call, EK_NLL_LOSS_GRAD_TARGETS, a->reduction, a->ignore_index);
    job.classes = (size_t)a->classes;
    float scale = (float)(-*dloss * job.weight);
    memset(dscores, 0, job.rows * job.classes * sizeof *dscores);
    for (size_t row = 0; row < job.rows; row++) {
        int32_t target = job.targets[row];
        if (target == job.ignore_index) continue;
        if (is_class(&job, target)) dscores[row * job.classes + (size_t)target] = scale;
        else dscores[row * job.classes] = NAN;
    }
}

/* The first of the largest; a NaN is larger than all, as for torch.argmax. */
static size_t argmax(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best] || (x[i] != x[i] && x[best] == x[best])) best = i;
    return best;
}

static void argmax_match_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_argmax_match_attrs *a = call->attrs;
    const int32_t *targets = call->in[EK_ARGMAX_MATCH_TARGETS];
    uint8_t *correct = call->out[EK_ARGMAX_MATCH_CORRECT];
    size_t classes = ek_columns(call->in_t[EK_ARGMAX_MATCH_SCORES]);
    ek_range r = ek_share(ek_elements(call->in_t[EK_ARGMAX_MATCH_TARGETS]), 64, index, count);
    for (size_t row = r.begin; row < r.end; row++) {
        const float *x = (const float *)call->in[EK_ARGMAX_MATCH_SCORES] + row * classes;
        correct[row] = targets[row] == a->ignore_index ? 2 : (int64_t)argmax(x, classes) == targets[row];
    }
}

static void argmax_match(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_ARGMAX_MATCH_SCORES]), argmax_match_part, (void *)call);
}

const ek_kernel EK_NAME(ek_kernel_cross_entropy) = {.scratch_bytes = partial_bytes, .run = cross_entropy};
const ek_kernel EK_NAME(ek_kernel_cross_entropy_grad) = {.run = cross_entropy_grad};
const ek_kernel EK_NAME(ek_kernel_nll_loss) = {.run = nll_loss};
const ek_kernel EK_NAME(ek_kernel_nll_loss_grad) = {.run = nll_loss_grad};
const ek_kernel EK_NAME(ek_kernel_argmax_match) = {.run = argmax_match};
