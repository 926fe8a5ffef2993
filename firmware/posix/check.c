/* `check`: whether this runner computes and writes on this machine: one line and 0, or why not and 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "home.h"
#include "pool_posix.h"
#include "runner.h"
#include "words.h"

enum { M = 19, K = 37, N = 45 }; /* no multiples of a tile */

typedef struct {
    _Alignas(64) float x[M * K], w[K * N], y[M * N];
    _Alignas(64) float dx[M * K], dw[K * N], db[N];
    _Alignas(64) float found[M * N + M * K + K * N];
} products;

static void fill(float *to, size_t count, float scale) {
    for (size_t i = 0; i < count; i++)
        to[i] = scale * (float)((int)(i * 2654435761u % 1999) - 999) / 999;
}

/* y = x w, dx = y wT, dw = xT y, db = column sums of y. */
static void plain_loop(products *p) {
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++)
                p->y[m * N + n] += p->x[m * K + k] * p->w[k * N + n];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            p->db[n] += p->y[m * N + n];
            for (int k = 0; k < K; k++) {
                p->dx[m * K + k] += p->y[m * N + n] * p->w[k * N + n];
                p->dw[k * N + n] += p->y[m * N + n] * p->x[m * K + k];
            }
        }
}

static bool equal(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(a[i] - b[i]) <= 1e-4f * (1 + fabsf(b[i]))))
            return false;
    return true;
}

static ek_tensor matrix(uint32_t rows, uint32_t columns) {
    return (ek_tensor){.dtype = EK_F32, .rank = 2, .storage = EK_ARENA, .dim = {rows, columns},
                       .bytes = (uint64_t)rows * columns * sizeof(float)};
}

/* False: no memory. */
static bool run(const ek_backend *backend, int opcode, ek_call call) {
    static const int32_t no_attributes[EK_ATTR_WORDS];
    const ek_kernel *kernel = backend->kernels[opcode];
    call.attrs = no_attributes;
    size_t bytes = kernel->scratch_bytes ? kernel->scratch_bytes(&call, ek_pool_threads(call.pool)) : 0;
    if (posix_memalign(&call.scratch, 64, bytes ? bytes : 64) != 0)
        return false;
    kernel->run(&call);
    free(call.scratch);
    return true;
}

/* NULL, or the product that is wrong. */
static const char *wrong_product(const ek_backend *backend, ek_pool *pool, products *p) {
    const ek_tensor x = matrix(M, K), w = matrix(K, N), y = matrix(M, N);
    ek_tensor b = {.dtype = EK_F32, .rank = 1, .storage = EK_ARENA, .dim = {N}, .bytes = N * sizeof(float)};
    float *dw = p->found, *db = p->found + K * N;
    fill(p->x, M * K, 1);
    fill(p->w, K * N, 0.3f);
    plain_loop(p);
    ek_call forward = {.in_t = {&x, &w}, .in = {p->x, p->w}, .out_t = {&y}, .out = {p->found}, .pool = pool};
    ek_call input = {.in_t = {&y, &w}, .in = {p->y, p->w}, .out_t = {&x}, .out = {p->found}, .pool = pool};
    ek_call weight = {.in_t = {&x, &y}, .in = {p->x, p->y}, .out_t = {&w, &b}, .out = {dw, db}, .pool = pool};
    if (!run(backend, EK_OP_LINEAR, forward) || !equal(p->found, p->y, M * N))
        return "the forward product";
    if (!run(backend, EK_OP_LINEAR_INPUT_GRAD, input) || !equal(p->found, p->dx, M * K))
        return "the input's gradient";
    if (!run(backend, EK_OP_LINEAR_WEIGHT_GRAD, weight) || !equal(dw, p->dw, K * N) || !equal(db, p->db, N))
        return "the weight's gradient";
    return NULL;
}

static ek_status check_file(ek_path *home, const char *option, ek_error *error) {
    static const char name[] = "run/check", text[] = "edgekit";
    ek_new_file file;
    ek_file back;
    if (ek_home_enter(option, home, error) != EK_OK || ek_file_create(&file, name, 0, error) != EK_OK)
        return error->status;
    if (ek_file_write(&file, text, sizeof text, error) != EK_OK) {
        ek_file_abandon(&file);
        return error->status;
    }
    if (ek_file_commit(&file, error) != EK_OK || ek_file_map(name, &back, error) != EK_OK)
        return error->status;
    bool same = back.size == sizeof text && memcmp(back.bytes, text, sizeof text) == 0;
    ek_file_unmap(&back);
    if (!same)
        return ek_fail(error, EK_IO, "a file in %.160s is read otherwise than it was written", home->text);
    return ek_path_remove(name, error);
}

int ek_check(const ek_options *options) {
    const ek_backend *backend = ek_backend_choose(options->isa);
    if (!backend)
        return EK_EXIT_USAGE;
    ek_pool *pool = ek_pool_open(options);
    void *memory = NULL;
    if (!pool || posix_memalign(&memory, 64, sizeof(products)) != 0) {
        fprintf(stderr, "edgekit-runner: no memory or no threads\n");
        return EK_EXIT_FAILED;
    }
    memset(memory, 0, sizeof(products));
    const char *wrong = wrong_product(backend, pool, memory);
    int threads = ek_pool_threads(pool);
    ek_pool_destroy(pool);
    free(memory);
    if (wrong) {
        fprintf(stderr, "edgekit-runner: %s is wrong with the %s kernels on this processor\n", wrong, backend->name);
        return EK_EXIT_FAILED;
    }
    ek_path home;
    ek_error error;
    if (check_file(&home, options->home, &error) != EK_OK) {
        fprintf(stderr, "edgekit-runner: %s\n", error.text);
        return EK_EXIT_FAILED;
    }
    printf("ok: %s kernels, %d threads, home %s\n", backend->name, threads, home.text);
    return 0;
}
