#include "ed25519.h"

#include <string.h>

#include "sha512.h"

/* ---- numbers of 256 bits: 8 words, the lowest first ---- */

typedef struct {
    uint32_t word[8];
} number;

static const number zero = {{0}}, one = {{1}};

/* p = 2^255 - 19, the field's; L = 2^252 + 27742317777372353535851937790883648493, the group's order. */
static const number p = {{0xffffffed, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x7fffffff}};
static const number order = {{0x5cf5d3ed, 0x5812631a, 0xa2f79cd6, 0x14def9de, 0, 0, 0, 0x10000000}};

static number read_number(const uint8_t bytes[32]) {
    number n;
    for (int i = 0; i < 8; i++)
        n.word[i] = (uint32_t)bytes[4 * i] | (uint32_t)bytes[4 * i + 1] << 8 | (uint32_t)bytes[4 * i + 2] << 16 |
                    (uint32_t)bytes[4 * i + 3] << 24;
    return n;
}

static bool below(const number *a, const number *b) {
    for (int i = 7; i >= 0; i--)
        if (a->word[i] != b->word[i])
            return a->word[i] < b->word[i];
    return false;
}

static bool bit(const number *n, int i) { return n->word[i / 32] >> i % 32 & 1; }

/* a -= b, modulo 2^256; -1 where b was the greater one, else 0. */
static int64_t subtract(number *a, const number *b) {
    int64_t carry = 0;
    for (int i = 0; i < 8; i++) {
        carry += (int64_t)a->word[i] - b->word[i];
        a->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return carry;
}

/* ---- the field: any number below 2^256 stands for its residue modulo p, and 2^256 for 38 ---- */

/* Adds carry × 2^256. */
static void fold(number *n, int64_t carry) {
    while (carry) {
        carry *= 38;
        for (int i = 0; i < 8; i++) {
            carry += n->word[i];
            n->word[i] = (uint32_t)carry;
            carry >>= 32;
        }
    }
}

static number sum(const number *a, const number *b) {
    number n;
    int64_t carry = 0;
    for (int i = 0; i < 8; i++) {
        carry += (int64_t)a->word[i] + b->word[i];
        n.word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    fold(&n, carry);
    return n;
}

static number difference(const number *a, const number *b) {
    number n = *a;
    fold(&n, subtract(&n, b));
    return n;
}

static number product(const number *a, const number *b) {
    uint32_t all[16] = {0};
    for (int i = 0; i < 8; i++) {
        uint64_t carry = 0;
        for (int k = 0; k < 8; k++) { /* at most (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1 */
            carry += (uint64_t)a->word[i] * b->word[k] + all[i + k];
            all[i + k] = (uint32_t)carry;
            carry >>= 32;
        }
        all[i + 8] = (uint32_t)carry;
    }
    number n;
    uint64_t carry = 0;
    for (int i = 0; i < 8; i++) {
        carry += (uint64_t)all[i + 8] * 38 + all[i];
        n.word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    fold(&n, (int64_t)carry);
    return n;
}

/* The residue itself. */
static number reduced(number n) {
    while (!below(&n, &p))
        subtract(&n, &p);
    return n;
}

static bool equal(const number *a, const number *b) {
    number x = reduced(difference(a, b));
    return memcmp(&x, &zero, sizeof x) == 0;
}

/* n to the power whose bytes are `first`, thirty times ff, `last`: what inversion and square roots take. */
static number power(const number *n, uint8_t first, uint8_t last) {
    number r = one;
    for (int i = 255; i >= 0; i--) {
        uint8_t byte = i < 8 ? first : i < 248 ? 0xff : last;
        r = product(&r, &r);
        if (byte >> i % 8 & 1)
            r = product(&r, n);
    }
    return r;
}

/* n^(p - 2) */
static number inverse(const number *n) { return power(n, 0xeb, 0x7f); }

/* ---- the curve: -x² + y² = 1 + d x² y², in extended coordinates x = X/Z, y = Y/Z, xy = T/Z ---- */

typedef struct {
    number x, y, z, t;
} point;

static const number d = {{0x135978a3, 0x75eb4dca, 0x4141d8ab, 0x00700a4d, 0x7779e898, 0x8cc74079, 0x2b6ffe73, 0x52036cee}};
static const number sqrt_minus_1 = {{0x4a0ea0b0, 0xc4ee1b27, 0xad2fe478, 0x2f431806, 0x3dfbd7a7, 0x2b4d0099, 0x4fc1df0b, 0x2b832480}};
static const point neutral = {.y = {{1}}, .z = {{1}}};
static const point base = {
    {{0x8f25d51a, 0xc9562d60, 0x9525a7b2, 0x692cc760, 0xfdd6dc5c, 0xc0a4e231, 0xcd6e53fe, 0x216936d3}},
    {{0x66666658, 0x66666666, 0x66666666, 0x66666666, 0x66666666, 0x66666666, 0x66666666, 0x66666666}},
    {{1}},
    {{0xa5b7dda3, 0x6dde8ab3, 0x775152f5, 0x20f09f80, 0x64abe37d, 0x66ea4e8e, 0xd78b7665, 0x67875f0f}},
};

/* RFC 8032, 5.1.4. It is right for any two points, equal ones and the neutral one included. */
static point add(const point *a, const point *b) {
    number a_less = difference(&a->y, &a->x), b_less = difference(&b->y, &b->x), a_more = sum(&a->y, &a->x), b_more = sum(&b->y, &b->x);
    number less = product(&a_less, &b_less), more = product(&a_more, &b_more), c = product(&a->t, &b->t), z = product(&a->z, &b->z);
    c = product(&c, &d);
    c = sum(&c, &c);
    z = sum(&z, &z);
    number e = difference(&more, &less), f = difference(&z, &c), g = sum(&z, &c), h = sum(&more, &less);
    return (point){product(&e, &f), product(&g, &h), product(&f, &g), product(&e, &h)};
}

static point negative(const point *a) {
    return (point){difference(&zero, &a->x), a->y, a->z, difference(&zero, &a->t)};
}

/* RFC 8032, 5.1.3. False: the bytes are no point's, or not in the canonical form. */
static bool decode(const uint8_t bytes[32], point *a) {
    number y = read_number(bytes);
    bool odd = bit(&y, 255);
    y.word[7] &= 0x7fffffff;
    if (!below(&y, &p))
        return false;
    number yy = product(&y, &y), dyy = product(&d, &yy), u = difference(&yy, &one), v = sum(&dyy, &one);
    number v2 = product(&v, &v), v3 = product(&v2, &v), v6 = product(&v3, &v3), v7 = product(&v6, &v), uv3 = product(&u, &v3), uv7 = product(&u, &v7);
    number root = power(&uv7, 0xfd, 0x0f), x = product(&uv3, &root); /* (u / v)^((p + 3) / 8) = u v³ (u v⁷)^((p - 5) / 8) */
    number xx = product(&x, &x), vxx = product(&v, &xx), minus_u = difference(&zero, &u);
    if (equal(&vxx, &minus_u))
        x = product(&x, &sqrt_minus_1);
    else if (!equal(&vxx, &u))
        return false;
    x = reduced(x);
    if (odd && equal(&x, &zero))
        return false;
    if (bit(&x, 0) != odd)
        x = difference(&zero, &x);
    *a = (point){x, y, one, product(&x, &y)};
    return true;
}

static void encode(const point *a, uint8_t bytes[32]) {
    number over_z = inverse(&a->z), x = product(&a->x, &over_z), y = product(&a->y, &over_z);
    x = reduced(x);
    y = reduced(y);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(y.word[i / 4] >> 8 * (i % 4));
    bytes[31] |= (uint8_t)(bit(&x, 0) << 7);
}

static bool of_small_order(const point *a) {
    point eight = *a;
    for (int i = 0; i < 3; i++)
        eight = add(&eight, &eight);
    return equal(&eight.x, &zero) && equal(&eight.y, &eight.z);
}

/* ---- signatures ---- */

/* 512 bits modulo the group's order, bit by bit. */
static number modulo_order(const uint8_t digest[64]) {
    number r = zero;
    for (int i = 511; i >= 0; i--) {
        for (int k = 7; k > 0; k--)
            r.word[k] = r.word[k] << 1 | r.word[k - 1] >> 31;
        r.word[0] = r.word[0] << 1 | (digest[i / 8] >> i % 8 & 1);
        if (!below(&r, &order))
            subtract(&r, &order);
    }
    return r;
}

/* [s] base + [h] a, both products at once (Straus's method). */
static point multiply(const number *s, const number *h, const point *a) {
    const point both = add(&base, a), *const choice[4] = {NULL, &base, a, &both};
    point r = neutral;
    for (int i = 252; i >= 0; i--) { /* both are below the order, which has 253 bits */
        r = add(&r, &r);
        int which = bit(s, i) | bit(h, i) << 1;
        if (which)
            r = add(&r, choice[which]);
    }
    return r;
}

bool ek_ed25519_verify(const uint8_t key[32], const void *message, size_t bytes, const uint8_t signature[64]) {
    number s = read_number(signature + 32);
    point a;
    if (!below(&s, &order) || !decode(key, &a) || of_small_order(&a))
        return false;
    uint8_t digest[64], r[32];
    ek_sha512 sha;
    ek_sha512_start(&sha);
    ek_sha512_add(&sha, signature, 32);
    ek_sha512_add(&sha, key, 32);
    ek_sha512_add(&sha, message, bytes);
    ek_sha512_finish(&sha, digest);
    number h = modulo_order(digest);
    a = negative(&a);
    a = multiply(&s, &h, &a);
    encode(&a, r);
    return memcmp(r, signature, sizeof r) == 0;
}
