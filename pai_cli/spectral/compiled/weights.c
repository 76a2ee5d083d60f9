/* Gram matrices of weights: of lists of edges in two ways, the quicker by their number, and of whole matrices.
 *
 * All in double precision. Where one is off by a part e of sigma_1^2, sigma_2 is by e sigma_1^2 / (2 sigma_2), and 1e-9 sigma_1
 * is what is promised: sums in single precision, off by 1e-6 and more, do not bear that. Sums in any order do, as their terms
 * are not negative (`forming_error`); that a value is multiplied by the inverse of the largest, and both are rounded, is
 * reckoned with where the scale is given back. */
#include "kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLAB 384     /* columns of a slab, at most; of a power of two, lines of all rows would share a few places of a cache */
#define PAIR_COST 14 /* of a pair of edges, in products of a dense matrix: measured */

/* Columns of the slab that begins at `from`, of `other` in all: whole vectors of them. */
static ptrdiff_t width_of(ptrdiff_t from, ptrdiff_t other)
{
    return other - from < SLAB ? (other - from + 7) & ~(ptrdiff_t)7 : SLAB;
}

/* To a lower triangle, pairs: each vertex of the far side adds the products of its edges' values, each times `factor`; two
 * rows and two columns of the result at a time. */
static void add_pairs(const edges_t *far, double factor, double *gram, ptrdiff_t ld)
{
    for (ptrdiff_t u = 0; u < far->n; u++) {
        const int32_t *to = far->neighbour + far->begin[u];
        const double *value = far->value + far->begin[u];
        ptrdiff_t degree = (ptrdiff_t)(far->begin[u + 1] - far->begin[u]), a = 0;
        for (; a + 2 <= degree; a += 2) {
            double *p = gram + to[a] * ld, *q = gram + to[a + 1] * ld;
            double by_p = value[a] * factor * factor, by_q = value[a + 1] * factor * factor;
            for (ptrdiff_t b = 0; b < a + 2; b += 2) { /* the last of p's is above the diagonal, where nobody reads */
                ptrdiff_t s = to[b], t = to[b + 1];
                double ps = p[s] + by_p * value[b], pt = p[t] + by_p * value[b + 1];
                double qs = q[s] + by_q * value[b], qt = q[t] + by_q * value[b + 1];
                p[s] = ps, p[t] = pt, q[s] = qs, q[t] = qt;
            }
        }
        if (a < degree) {
            double *p = gram + to[a] * ld, by_p = value[a] * factor * factor;
            for (ptrdiff_t b = 0; b <= a; b++)
                p[to[b]] += by_p * value[b];
        }
    }
}

/* The same by slabs of columns as dense matrices, small enough for the second cache: `near` has the lists of the rows. */
static int add_slabs(const edges_t *near, double factor, double *gram, ptrdiff_t ld)
{
    double *slab = malloc((size_t)(ld * SLAB) * sizeof(double));
    int64_t *at = malloc((size_t)(near->n + 1) * sizeof(int64_t));
    int done = slab != NULL && at != NULL;
    if (done)
        memcpy(at, near->begin, (size_t)near->n * sizeof(int64_t));
    for (ptrdiff_t from = 0; done && from < near->other; from += SLAB) {
        ptrdiff_t width = width_of(from, near->other);
        memset(slab, 0, (size_t)(ld * width) * sizeof(double));
        for (ptrdiff_t v = 0; v < near->n; v++) {
            double *row = slab + v * width;
            int64_t k = at[v];
            for (; k < near->begin[v + 1] && near->neighbour[k] < from + SLAB; k++)
                row[near->neighbour[k] - from] = near->value[k] * factor;
            at[v] = k;
        }
        add_gram(slab, width, gram, ld);
    }
    free(slab);
    free(at);
    return done;
}

/* The same, `far` has the lists of the columns. */
static int add_turned_slabs(const edges_t *far, double factor, double *gram, ptrdiff_t ld)
{
    double *slab = malloc((size_t)(ld * SLAB) * sizeof(double));
    if (slab == NULL)
        return 0;
    for (ptrdiff_t from = 0; from < far->n; from += SLAB) {
        ptrdiff_t width = width_of(from, far->n);
        memset(slab, 0, (size_t)(ld * width) * sizeof(double));
        for (ptrdiff_t u = from; u < far->n && u < from + SLAB; u++)
            for (int64_t k = far->begin[u]; k < far->begin[u + 1]; k++)
                slab[far->neighbour[k] * width + u - from] = far->value[k] * factor;
        add_gram(slab, width, gram, ld);
    }
    free(slab);
    return 1;
}

/* Whether slabs are quicker than pairs for a Gram matrix of side n, the other side having `other` vertices. */
static int slabs_are_quicker(double pairs, ptrdiff_t n, ptrdiff_t other)
{
    return pairs * PAIR_COST > (double)n * (double)n / 2 * (double)other;
}

/* The Gram matrix of the vertices with lists, each value times `factor`, as a lower triangle; 0: no memory. */
int gram_of_lists(const edges_t *near, double factor, double *gram, ptrdiff_t ld)
{
    edges_t far;
    int32_t *degree = calloc((size_t)(near->other + 1), sizeof(int32_t));
    if (degree == NULL)
        return 0;
    double pairs = 0.0;
    for (int64_t k = near->begin[0]; k < near->begin[near->n]; k++)
        degree[near->neighbour[k]]++;
    for (ptrdiff_t u = 0; u < near->other; u++)
        pairs += (double)degree[u] * (double)degree[u] / 2;
    free(degree);
    memset(gram, 0, (size_t)(ld * ld) * sizeof(double));
    if (slabs_are_quicker(pairs, near->n, near->other))
        return add_slabs(near, factor, gram, ld);
    if (!turn(near, 0, &far))
        return 0;
    add_pairs(&far, factor, gram, ld);
    free_edges(&far);
    return 1;
}

/* The same of the vertices on the other side. */
int gram_of_neighbours(const edges_t *far, double factor, double *gram, ptrdiff_t ld)
{
    double pairs = 0.0;
    for (ptrdiff_t u = 0; u < far->n; u++) {
        double degree = (double)(far->begin[u + 1] - far->begin[u]);
        pairs += degree * degree / 2;
    }
    memset(gram, 0, (size_t)(ld * ld) * sizeof(double));
    if (slabs_are_quicker(pairs, far->other, far->n))
        return add_turned_slabs(far, factor, gram, ld);
    add_pairs(far, factor, gram, ld);
    return 1;
}

/* A slab of `width` columns from `from` on of the smaller side's rows: absolute values over `largest`. */
#define FILL(name, real)                                                                                                 \
    static void name(const real *weights, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t from, double largest, double *slab, \
                     ptrdiff_t width)                                                                                      \
    {                                                                                                                      \
        ptrdiff_t other = rows <= columns ? columns : rows, n = rows <= columns ? rows : columns;                          \
        ptrdiff_t last = from + width < other ? from + width : other;                                                      \
        if (rows <= columns) {                                                                                             \
            for (ptrdiff_t i = 0; i < n; i++)                                                                              \
                for (ptrdiff_t k = from; k < last; k++)                                                                    \
                    slab[i * width + k - from] = fabs((double)weights[i * columns + k]) / largest;                         \
            return;                                                                                                        \
        }                                                                                                                  \
        for (ptrdiff_t block = from; block < last; block += 8) /* one line of the cache for each row */                    \
            for (ptrdiff_t i = 0; i < n; i++)                                                                              \
                for (ptrdiff_t k = block; k < last && k < block + 8; k++)                                                  \
                    slab[i * width + k - from] = fabs((double)weights[k * columns + i]) / largest;                         \
    }

FILL(fill_single, float)
FILL(fill_double, double)

/* The Gram matrix of the smaller side of a whole matrix of absolute values, over `largest`; 0: no memory. */
int gram_of_weights(const void *weights, ptrdiff_t size, ptrdiff_t rows, ptrdiff_t columns, double largest, double *gram,
                    ptrdiff_t ld)
{
    ptrdiff_t other = rows <= columns ? columns : rows;
    double *slab = malloc((size_t)(ld * SLAB) * sizeof(double));
    if (slab == NULL)
        return 0;
    memset(gram, 0, (size_t)(ld * ld) * sizeof(double));
    for (ptrdiff_t from = 0; from < other; from += SLAB) {
        ptrdiff_t width = width_of(from, other);
        memset(slab, 0, (size_t)(ld * width) * sizeof(double));
        if (size == sizeof(float))
            fill_single(weights, rows, columns, from, largest, slab, width);
        else
            fill_double(weights, rows, columns, from, largest, slab, width);
        add_gram(slab, width, gram, ld);
    }
    free(slab);
    return 1;
}
