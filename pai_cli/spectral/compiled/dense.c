/* Dense products in double precision. */
#include "kernel.h"

#include <math.h>
#include <string.h>

WIDE double dot(const double *x, const double *y, ptrdiff_t ld)
{
    quad a = {0}, b = {0}, c = {0}, d = {0};
    ptrdiff_t k = 0;
    for (; k + 16 <= ld; k += 16) {
        a += load(x + k) * load(y + k);
        b += load(x + k + 4) * load(y + k + 4);
        c += load(x + k + 8) * load(y + k + 8);
        d += load(x + k + 12) * load(y + k + 12);
    }
    for (; k < ld; k += 4)
        a += load(x + k) * load(y + k);
    return total((a + b) + (c + d));
}

WIDE void axpy(double factor, const double *x, double *y, ptrdiff_t ld)
{
    for (ptrdiff_t k = 0; k < ld; k += 4)
        store(y + k, load(y + k) + factor * load(x + k));
}

/* Take from x what lies along each of `count` orthonormal vectors, four of them at a time: x less its projection. */
WIDE void take_out(const double *vectors, ptrdiff_t count, double *x, ptrdiff_t ld)
{
    for (; count >= 4; count -= 4, vectors += 4 * ld) {
        const double *v = vectors, *w = v + ld, *y = w + ld, *z = y + ld;
        quad a = {0}, b = {0}, c = {0}, d = {0};
        for (ptrdiff_t k = 0; k < ld; k += 4) {
            quad at = load(x + k);
            a += load(v + k) * at, b += load(w + k) * at, c += load(y + k) * at, d += load(z + k) * at;
        }
        double p = total(a), q = total(b), r = total(c), s = total(d);
        for (ptrdiff_t k = 0; k < ld; k += 4)
            store(x + k, load(x + k) - ((p * load(v + k) + q * load(w + k)) + (r * load(y + k) + s * load(z + k))));
    }
    for (; count > 0; count--, vectors += ld)
        axpy(-dot(vectors, x, ld), vectors, x, ld);
}

/* y = G x for the first `rows` (even) of a lower triangle: each entry is read once and used twice, two rows at a time to
 * halve the traffic in y. */
WIDE void symmetric_times(const double *gram, ptrdiff_t rows, ptrdiff_t ld, const double *x, double *y)
{
    memset(y, 0, (size_t)fours(rows) * sizeof(double));
    for (ptrdiff_t i = 0; i < rows; i += 2) {
        const double *p = gram + i * ld, *q = p + ld;
        quad up = {0}, uq = {0};
        double xp = x[i], xq = x[i + 1];
        ptrdiff_t end = i & ~(ptrdiff_t)3;
        for (ptrdiff_t k = 0; k < end; k += 4) {
            quad gp = load(p + k), gq = load(q + k), xk = load(x + k);
            up += gp * xk;
            uq += gq * xk;
            store(y + k, load(y + k) + (xp * gp + xq * gq));
        }
        double sp = total(up), sq = total(uq);
        for (ptrdiff_t k = end; k < i; k++) {
            sp += p[k] * x[k];
            sq += q[k] * x[k];
            y[k] += xp * p[k] + xq * q[k];
        }
        y[i] += sp + p[i] * xp + q[i] * xq;
        y[i + 1] += sq + q[i] * xp + q[i + 1] * xq;
    }
}

/* The sums of four vectors, as one vector. */
ALWAYS quad sums(quad a, quad b, quad c, quad d)
{
    quad ab = PICK(a, b, 0, 4, 2, 6) + PICK(a, b, 1, 5, 3, 7);
    quad cd = PICK(c, d, 0, 4, 2, 6) + PICK(c, d, 1, 5, 3, 7);
    return PICK(ab, cd, 0, 1, 4, 5) + PICK(ab, cd, 2, 3, 6, 7);
}

/* Inner products of four rows with four over `length`, a multiple of 4: out[r] = (p_r . q_0, ..., p_r . q_3). */
typedef void products_t(const double *p, const double *q, ptrdiff_t ld, ptrdiff_t length, quad out[4]);

ALWAYS void products(const double *p, const double *q, ptrdiff_t ld, ptrdiff_t length, quad out[4])
{
    for (int r = 0; r < 4; r += 2, p += 2 * ld) { /* two rows at a time: eight sums are what the registers hold */
        quad a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
        for (ptrdiff_t k = 0; k < length; k += 4) {
            quad x = load(p + k), y = load(p + ld + k);
            quad q0 = load(q + k), q1 = load(q + ld + k), q2 = load(q + 2 * ld + k), q3 = load(q + 3 * ld + k);
            a0 += x * q0, a1 += x * q1, a2 += x * q2, a3 += x * q3;
            b0 += y * q0, b1 += y * q1, b2 += y * q2, b3 += y * q3;
        }
        out[r] = sums(a0, a1, a2, a3);
        out[r + 1] = sums(b0, b1, b2, b3);
    }
}

/* The 4 x 4 block on the diagonal, factored in place; 0 when a pivot is not positive. */
ALWAYS int factor_block(double *at, ptrdiff_t ld)
{
    for (int c = 0; c < 4; c++) {
        double pivot = at[c * ld + c];
        for (int k = 0; k < c; k++)
            pivot -= at[c * ld + k] * at[c * ld + k];
        if (!(pivot > 0.0) || !isfinite(pivot))
            return 0;
        at[c * ld + c] = pivot = sqrt(pivot);
        for (int r = c + 1; r < 4; r++) {
            double value = at[r * ld + c];
            for (int k = 0; k < c; k++)
                value -= at[r * ld + k] * at[c * ld + k];
            at[r * ld + c] = value / pivot;
        }
    }
    return 1;
}

/* Factor a symmetric matrix of `ld` rows in place; 0 when it is not positive definite. Four columns at a time, each
 * entry less the inner product of the rows' parts that are done (left-looking: all reads are along rows). */
ALWAYS int factor(double *matrix, ptrdiff_t ld, products_t *multiply)
{
    quad done[4];
    for (ptrdiff_t j = 0; j < ld; j += 4) {
        double *panel = matrix + j * ld, *block = panel + j;
        multiply(panel, panel, ld, j, done);
        for (ptrdiff_t r = 0; r < 4; r++)
            for (ptrdiff_t c = 0; c <= r; c++) /* only the lower triangle may be written */
                block[r * ld + c] -= done[r][c];
        if (!factor_block(block, ld))
            return 0;
        for (ptrdiff_t i = j + 4; i < ld; i += 4) {
            double *rows = matrix + i * ld;
            multiply(rows, panel, ld, j, done);
            for (ptrdiff_t r = 0; r < 4; r++, rows += ld) {
                quad x = load(rows + j) - done[r];
                for (int c = 0; c < 4; c++) {
                    double value = x[c];
                    for (int k = 0; k < c; k++)
                        value -= x[k] * block[c * ld + k];
                    x[c] = value / block[c * ld + c];
                }
                store(rows + j, x);
            }
        }
    }
    return 1;
}

WIDE static int factor_narrow(double *matrix, ptrdiff_t ld)
{
    return factor(matrix, ld, products);
}

#ifdef HAS_WIDEST
typedef double eight __attribute__((vector_size(64)));
typedef double eight_u __attribute__((vector_size(64), aligned(8)));

#define EIGHT(at) (*(const eight_u *)(at))
#define HALVES(v) (__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7))

WIDEST __attribute__((always_inline)) static inline void products_widest(const double *p, const double *q, ptrdiff_t ld,
                                                                         ptrdiff_t length, quad out[4])
{
    eight a[4][4] = {0};
    ptrdiff_t k = 0;
    for (; k + 8 <= length; k += 8)
        for (int c = 0; c < 4; c++) {
            eight x = EIGHT(q + c * ld + k);
            for (int r = 0; r < 4; r++)
                a[r][c] += x * EIGHT(p + r * ld + k);
        }
    for (int r = 0; r < 4; r++) {
        quad b[4];
        for (int c = 0; c < 4; c++) {
            b[c] = HALVES(a[r][c]);
            if (k < length)
                b[c] += load(p + r * ld + k) * load(q + c * ld + k);
        }
        out[r] = sums(b[0], b[1], b[2], b[3]);
    }
}

WIDEST static int factor_widest(double *matrix, ptrdiff_t ld)
{
    return factor(matrix, ld, products_widest);
}
#endif

ALWAYS void add_products(const double *rows, ptrdiff_t length, double *gram, ptrdiff_t ld, products_t *multiply)
{
    quad sum[4];
    for (ptrdiff_t j = 0; j < ld; j += 4)
        for (ptrdiff_t i = j; i < ld; i += 4) {
            multiply(rows + i * length, rows + j * length, length, length, sum);
            for (ptrdiff_t r = 0; r < 4; r++)
                for (ptrdiff_t c = 0; c < 4 && j + c <= i + r; c++)
                    gram[(i + r) * ld + j + c] += sum[r][c];
        }
}

WIDE static void add_narrow(const double *rows, ptrdiff_t length, double *gram, ptrdiff_t ld)
{
    add_products(rows, length, gram, ld, products);
}

#ifdef HAS_WIDEST
WIDEST static void add_widest(const double *rows, ptrdiff_t length, double *gram, ptrdiff_t ld)
{
    add_products(rows, length, gram, ld, products_widest);
}
#endif

/* Add the inner products of `ld` rows of `length` entries, a multiple of 4, to a lower triangle. */
void add_gram(const double *rows, ptrdiff_t length, double *gram, ptrdiff_t ld)
{
#ifdef HAS_WIDEST
    if (RUNS_WIDEST) {
        add_widest(rows, length, gram, ld);
        return;
    }
#endif
    add_narrow(rows, length, gram, ld);
}

int cholesky(double *matrix, ptrdiff_t ld)
{
#ifdef HAS_WIDEST
    if (RUNS_WIDEST)
        return factor_widest(matrix, ld);
#endif
    return factor_narrow(matrix, ld);
}
