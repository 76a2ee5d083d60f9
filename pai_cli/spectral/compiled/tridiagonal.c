/* Symmetric tridiagonal matrices: eigenvalues by the implicit QL method, the largest by Newton's, single eigenvectors by inverse
 * iteration, and Householder's reduction of a full symmetric matrix to this form. */
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define MOST_TURNS 60 /* of Newton's method, or halving */
#define VANISHED 1e-100 /* squared: so little may be left out of a Gram matrix, whose largest entry is at least 1 */

/* What is nothing beside the largest eigenvalue, far within the error that is claimed: of strongly graded matrices small
 * entries never become small beside their neighbours. */
static double negligible(const double *diagonal, const double *off, ptrdiff_t n)
{
    double largest = 0.0;
    for (ptrdiff_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(diagonal[i]) + fabs(off[i]));
    return DBL_EPSILON * DBL_EPSILON * largest;
}

/* Implicit QL (Dubrulle, Martin and Wilkinson 1968). `diagonal` (n) becomes the eigenvalues, in no order; `off` (n, the
 * entry below each diagonal one, the last unused) is destroyed; `last`, when given, becomes the last components of the
 * eigenvectors. 0 when an eigenvalue takes more than 60 turns. */
int tridiagonal_values(double *diagonal, double *off, double *last, ptrdiff_t n)
{
    if (last != NULL)
        for (ptrdiff_t i = 0; i < n; i++)
            last[i] = i == n - 1 ? 1.0 : 0.0;
    off[n - 1] = 0.0;
    double floor = negligible(diagonal, off, n);
    for (ptrdiff_t at = 0; at < n; at++) {
        for (int turn = 0;; turn++) {
            ptrdiff_t end = at;
            while (end < n - 1 &&
                   fabs(off[end]) > fmax(floor, DBL_EPSILON / 2 * (fabs(diagonal[end]) + fabs(diagonal[end + 1]))))
                end++;
            if (end == at)
                break;
            if (turn == 60)
                return 0;
            double g = (diagonal[at + 1] - diagonal[at]) / (2.0 * off[at]), r = sqrt(g * g + 1.0);
            g = diagonal[end] - diagonal[at] + off[at] / (g + copysign(r, g));
            double s = 1.0, c = 1.0, p = 0.0;
            ptrdiff_t i;
            for (i = end - 1; i >= at; i--) {
                double f = s * off[i], b = c * off[i];
                r = sqrt(f * f + g * g);
                off[i + 1] = r;
                if (r == 0.0) {
                    diagonal[i + 1] -= p;
                    off[end] = 0.0;
                    break;
                }
                double inverse = 1.0 / r;
                s = f * inverse, c = g * inverse;
                g = diagonal[i + 1] - p;
                r = (diagonal[i] - g) * s + 2.0 * c * b;
                p = s * r;
                diagonal[i + 1] = g + p;
                g = c * r - b;
                if (last != NULL) {
                    f = last[i + 1];
                    last[i + 1] = s * last[i] + c * f;
                    last[i] = c * last[i] - s * f;
                }
            }
            if (r == 0.0 && i >= at)
                continue;
            diagonal[at] -= p;
            off[at] = g;
            off[end] = 0.0;
        }
    }
    return 1;
}

/* T - value I as triangular factors, by elimination with row exchanges: the upper one is three diagonals. */
typedef struct {
    double *pivot, *next, *after; /* of the upper factor */
    double *factor, *swapped;     /* of each step of the elimination */
} factors_t;

static double kept_from_zero(double pivot, double least)
{
    return fabs(pivot) < least ? least : pivot;
}

static void eliminate(const double *diagonal, const double *off, ptrdiff_t n, double value, const factors_t *f)
{
    double size = fmax(fabs(value), 1e-200); /* a zero matrix must not lead to infinities */
    for (ptrdiff_t i = 0; i < n; i++)
        size = fmax(size, fabs(diagonal[i]) + (i + 1 < n ? fabs(off[i]) : 0.0));
    double least = DBL_EPSILON * size, a = diagonal[0] - value, b = n > 1 ? off[0] : 0.0;
    for (ptrdiff_t i = 0; i + 1 < n; i++) {
        double below = off[i], d = diagonal[i + 1] - value, e = i + 2 < n ? off[i + 1] : 0.0;
        f->after[i] = f->swapped[i] = 0.0;
        if (fabs(a) >= fabs(below)) {
            f->pivot[i] = kept_from_zero(a, least), f->next[i] = b;
            f->factor[i] = below / f->pivot[i];
            a = d - f->factor[i] * b, b = e;
        } else {
            f->pivot[i] = below, f->next[i] = d, f->after[i] = e, f->swapped[i] = 1.0;
            f->factor[i] = a / below;
            a = b - f->factor[i] * d, b = -f->factor[i] * e;
        }
    }
    f->pivot[n - 1] = kept_from_zero(a, least), f->next[n - 1] = f->after[n - 1] = 0.0;
}

static void forward(const factors_t *f, ptrdiff_t n, double *x)
{
    for (ptrdiff_t i = 0; i + 1 < n; i++) {
        if (f->swapped[i] != 0.0) {
            double t = x[i];
            x[i] = x[i + 1], x[i + 1] = t;
        }
        x[i + 1] -= f->factor[i] * x[i];
    }
}

/* Backward, and to norm 1 (by way of the largest entry, as the square of a large one might overflow). */
static void backward(const factors_t *f, ptrdiff_t n, double *x)
{
    double norm = 0.0, largest = 0.0;
    for (ptrdiff_t i = n - 1; i >= 0; i--) {
        double value = x[i] - (i + 1 < n ? f->next[i] * x[i + 1] : 0.0) - (i + 2 < n ? f->after[i] * x[i + 2] : 0.0);
        x[i] = value / f->pivot[i];
        largest = fmax(largest, fabs(x[i]));
    }
    for (ptrdiff_t i = 0; i < n; i++)
        x[i] /= largest, norm += x[i] * x[i];
    norm = sqrt(norm);
    for (ptrdiff_t i = 0; i < n; i++)
        x[i] /= norm;
}

/* Eigenvector (norm 1) of the eigenvalue `value`: three turns of inverse iteration. `work` has room for 5 n. */
void tridiagonal_vector(const double *diagonal, const double *off, ptrdiff_t n, double value, double *out, double *work)
{
    factors_t factors = {work, work + n, work + 2 * n, work + 3 * n, work + 4 * n};
    eliminate(diagonal, off, n, value, &factors);
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = 1.0 + 0.01 * (double)((i * 7919) % 101); /* no eigenvector is likely to be orthogonal to it */
    backward(&factors, n, out);
    for (int turn = 0; turn < 2; turn++) {
        forward(&factors, n, out);
        backward(&factors, n, out);
    }
}

/* Householder's reduction (lower triangle given, destroyed): `diagonal` and `off` (n each) of a tridiagonal matrix with
 * the same eigenvalues. From the last row up, so that all that is read lies along rows. `work` has room for 2 ld. */
WIDE void tridiagonalise(double *matrix, ptrdiff_t n, ptrdiff_t ld, double *diagonal, double *off, double *work)
{
    double *u = work, *image = work + ld;
    for (ptrdiff_t i = n - 1; i > 0; i--) {
        double *row = matrix + i * ld, rest = 0.0, size = 0.0;
        ptrdiff_t side = fours(i);
        memset(u, 0, (size_t)ld * sizeof(double));
        memcpy(u, row, (size_t)i * sizeof(double));
        diagonal[i] = row[i], off[i - 1] = u[i - 1];
        memset(row, 0, (size_t)ld * sizeof(double)); /* so that whole groups of four may be read */
        for (ptrdiff_t k = 0; k + 1 < i; k++)
            rest += u[k] * u[k];
        if (rest < VANISHED)
            continue;
        size = sqrt(rest + u[i - 1] * u[i - 1]);
        off[i - 1] = u[i - 1] > 0.0 ? -size : size;
        double h = size * (size + fabs(u[i - 1])); /* the reflector is I - u u^T / h */
        u[i - 1] -= off[i - 1];
        symmetric_times(matrix, (i + 1) & ~(ptrdiff_t)1, ld, u, image);
        double half = dot(u, image, side) / (2.0 * h * h);
        for (ptrdiff_t k = 0; k < side; k++)
            image[k] = image[k] / h - half * u[k];
        for (ptrdiff_t r = 0; r < i; r++) {
            double *to = matrix + r * ld, ur = u[r], qr = image[r];
            for (ptrdiff_t k = 0; k <= r; k += 4)
                store(to + k, load(to + k) - (ur * load(image + k) + qr * load(u + k)));
        }
    }
    diagonal[0] = matrix[0];
}

/* Of a matrix less each of four values times I, what elimination from its last row up tells. */
typedef struct {
    double above[4]; /* how many eigenvalues are larger than the value (Sturm) */
    double step[4];  /* by Newton's method, to an eigenvalue */
    double last[4];  /* the last component of that one's eigenvector, of norm 1, once the step is small */
} swept_t;

typedef long long flags __attribute__((vector_size(32)));

ALWAYS quad where(flags which, quad yes, quad no) { return (quad)((which & (flags)yes) | (~which & (flags)no)); }

WIDE static void sweep(const double *diagonal, const double *off, ptrdiff_t n, const double values[4], swept_t *out)
{
    const quad value = load(values), zero = {0}, one = zero + 1.0, least = zero + DBL_MIN;
    quad pivot = diagonal[n - 1] - value, norm = one, last = one, above = where(pivot >= least, one, zero);
    for (ptrdiff_t k = n - 2; k >= 0; k--) {
        double beta = off[k]; /* never below 0 */
        quad ratio = beta / where((pivot < least) & (-pivot < least), -least, pivot); /* 0 is not counted, so below it */
        pivot = diagonal[k] - value - beta * ratio; /* of the vector: norm, over its component here */
        norm = 1.0 + norm * ratio * ratio, last *= where(ratio < zero, -ratio, ratio);
        above += where(pivot >= least, one, zero);
    }
    norm += zero * norm; /* one that overflowed tells nothing */
    store(out->above, above), store(out->step, pivot / norm), store(out->last, last);
    for (int lane = 0; lane < 4; lane++)
        out->last[lane] /= sqrt(norm[lane]);
}

/* The TOP largest eigenvalues, none above `high` or below -high, to within `near`: by Newton's method, halving where that leads
 * out of what is known. No entry of `off` is below 0. `top`: where to begin; `last` as above. */
void largest_values(const double *diagonal, const double *off, ptrdiff_t n, double high, double near, double top[TOP],
                    double last[TOP])
{
    double value[4] = {top[0], top[1], top[2], -high}, low[TOP], up[TOP];
    int left = TOP, done[TOP] = {0};
    swept_t at;
    for (int rank = 0; rank < TOP; rank++) {
        low[rank] = -high, up[rank] = high;
        value[rank] = value[rank] > low[rank] && value[rank] < up[rank] ? value[rank] : high * (TOP - rank) / (TOP + 1);
    }
    for (int turn = 0; turn < MOST_TURNS && left > 0; turn++) {
        sweep(diagonal, off, n, value, &at);
        for (int rank = 0; rank < TOP; rank++) /* each value tells of all */
            for (int lane = 0; lane < TOP; lane++)
                if (at.above[lane] > rank)
                    low[rank] = fmax(low[rank], value[lane]);
                else
                    up[rank] = fmin(up[rank], value[lane]);
        for (int rank = 0; rank < TOP; rank++) {
            double step = at.step[rank], next = value[rank] + step;
            if (done[rank])
                continue;
            last[rank] = at.last[rank], top[rank] = value[rank];
            if (fabs(step) <= near && at.above[rank] - (step > 0.0) == rank)
                top[rank] = next, done[rank] = 1;
            else if (value[rank] - low[rank] <= near && up[rank] - value[rank] <= near) /* not only low and up */
                done[rank] = 1;
            else
                value[rank] = next > low[rank] && next < up[rank] ? next : low[rank] + (up[rank] - low[rank]) / 2;
            left -= done[rank];
        }
    }
}
