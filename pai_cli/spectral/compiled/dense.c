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

typedef double eight __attribute__((vector_size(64)));
typedef double eight_u __attribute__((vector_size(64), aligned(8)));

#define EIGHT(at) (*(const eight_u *)(at))

/* A panel is PANEL columns of the lower triangle from the diagonal down, in blocks of eight rows: entry (i, c) stands at
 * (i / 8) * BLOCK + 8 c + i % 8. */
#define BLOCK (8 * PANEL)

ALWAYS void take_panel(const double *matrix, ptrdiff_t ld, ptrdiff_t length, double *panel)
{
    ptrdiff_t width = length < PANEL ? length : PANEL;
    memset(panel, 0, BLOCK * sizeof(double));
    for (ptrdiff_t i = 0; i < length; i++, matrix += ld)
        for (ptrdiff_t c = 0; c < width && c <= i; c++)
            panel[i / 8 * BLOCK + 8 * c + i % 8] = matrix[c];
}

/* Those columns of the factor, in place; 0 when a pivot is not positive. */
ALWAYS int factor_panel(double *panel, ptrdiff_t length)
{
    for (ptrdiff_t c = 0; c < PANEL && c < length; c++) { /* the first block, which has the pivots */
        eight_u *column = (eight_u *)(panel + 8 * c);
        for (ptrdiff_t m = 0; m < c; m++)
            *column -= panel[8 * m + c] * EIGHT(panel + 8 * m);
        double pivot = panel[9 * c];
        if (!(pivot > 0.0) || !isfinite(pivot))
            return 0;
        *column /= sqrt(pivot);
    }
    for (double *block = panel + BLOCK; block < panel + length * PANEL; block += BLOCK) {
        eight x[PANEL];
        for (ptrdiff_t c = 0; c < PANEL; c++) {
            x[c] = EIGHT(block + 8 * c);
            for (ptrdiff_t m = 0; m < c; m++)
                x[c] -= panel[8 * m + c] * x[m];
            x[c] /= panel[9 * c];
            *(eight_u *)(block + 8 * c) = x[c];
        }
    }
    return 1;
}

/* From four rows, of `count` columns each (a multiple of 4), take the products of the panel's rows: `left` those of the four,
 * `right` the block of the first columns. */
typedef void take_t(double *row, ptrdiff_t ld, ptrdiff_t count, const double *left, const double *right);

/* The same of four columns. */
ALWAYS void take_four(double *row, ptrdiff_t ld, const double *left, const double *right)
{
    quad a = load(row), b = load(row + ld), c = load(row + 2 * ld), d = load(row + 3 * ld);
    for (ptrdiff_t k = 0; k < BLOCK; k += 8) {
        quad q = load(right + k);
        a -= left[k] * q, b -= left[k + 1] * q, c -= left[k + 2] * q, d -= left[k + 3] * q;
    }
    store(row, a), store(row + ld, b), store(row + 2 * ld, c), store(row + 3 * ld, d);
}

ALWAYS void take_narrow(double *row, ptrdiff_t ld, ptrdiff_t count, const double *left, const double *right)
{
    ptrdiff_t j = 0;
    for (; j + 8 <= count; j += 8, right += BLOCK) {
        double *p = row + j, *q = p + ld, *r = q + ld, *s = r + ld;
        quad a = load(p), b = load(q), c = load(r), d = load(s);
        quad e = load(p + 4), f = load(q + 4), g = load(r + 4), h = load(s + 4);
        for (ptrdiff_t k = 0; k < BLOCK; k += 8) {
            quad x = load(right + k), y = load(right + k + 4);
            a -= left[k] * x, b -= left[k + 1] * x, c -= left[k + 2] * x, d -= left[k + 3] * x;
            e -= left[k] * y, f -= left[k + 1] * y, g -= left[k + 2] * y, h -= left[k + 3] * y;
        }
        store(p, a), store(q, b), store(r, c), store(s, d);
        store(p + 4, e), store(q + 4, f), store(r + 4, g), store(s + 4, h);
    }
    if (j < count)
        take_four(row + j, ld, left, right);
}

/* Whether a symmetric matrix of `ld` rows is positive definite: whether it has a Cholesky factor, of which only the columns
 * at hand are kept. */
ALWAYS int factor(double *matrix, ptrdiff_t ld, double *panel, take_t *take)
{
    for (ptrdiff_t from = 0; from < ld; from += PANEL) {
        double *corner = matrix + from * ld + from;
        ptrdiff_t length = ld - from;
        take_panel(corner, ld, length, panel);
        if (!factor_panel(panel, length))
            return 0;
        for (ptrdiff_t i = PANEL; i < length; i += 4)
            take(corner + i * ld + PANEL, ld, i + 4 - PANEL, panel + i / 8 * BLOCK + i % 8, panel + BLOCK);
    }
    return 1;
}

WIDE static int factor_narrow(double *matrix, ptrdiff_t ld, double *panel)
{
    return factor(matrix, ld, panel, take_narrow);
}

#ifdef HAS_WIDEST
WIDEST __attribute__((always_inline)) static inline void take_widest(double *row, ptrdiff_t ld, ptrdiff_t count,
                                                                     const double *left, const double *right)
{
    ptrdiff_t j = 0;
    for (; j + 8 <= count; j += 8, right += BLOCK) {
        double *p = row + j, *q = p + ld, *r = q + ld, *s = r + ld;
        eight a = EIGHT(p), b = EIGHT(q), c = EIGHT(r), d = EIGHT(s);
        for (ptrdiff_t k = 0; k < BLOCK; k += 8) {
            eight x = EIGHT(right + k);
            a -= left[k] * x, b -= left[k + 1] * x, c -= left[k + 2] * x, d -= left[k + 3] * x;
        }
        *(eight_u *)p = a, *(eight_u *)q = b, *(eight_u *)r = c, *(eight_u *)s = d;
    }
    if (j < count)
        take_four(row + j, ld, left, right);
}

WIDEST static int factor_widest(double *matrix, ptrdiff_t ld, double *panel)
{
    return factor(matrix, ld, panel, take_widest);
}
#endif

/* The matrix is lost; `panel` has room for PANEL * (ld + 4). */
int cholesky(double *matrix, ptrdiff_t ld, double *panel)
{
#ifdef HAS_WIDEST
    if (RUNS_WIDEST)
        return factor_widest(matrix, ld, panel);
#endif
    return factor_narrow(matrix, ld, panel);
}

#ifdef HAS_WIDEST
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
