/* A graph as lists of neighbours, for few edges and for weights. */
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#define SLAB 256     /* columns of a slab */
#define PAIR_COST 40 /* of a pair of edges, in products of a dense matrix: measured, 8 to 17 by the machine */

void free_edges(edges_t *edges)
{
    free((void *)edges->begin);
    free((void *)edges->neighbour);
    free((void *)edges->value);
    memset(edges, 0, sizeof *edges);
}

static int make_room(edges_t *edges, ptrdiff_t n, int64_t count, int valued)
{
    edges->begin = calloc((size_t)(n + 1), sizeof(int64_t));
    edges->neighbour = malloc((size_t)(count + 1) * sizeof(int32_t));
    edges->value = valued ? malloc((size_t)(count + 1) * sizeof(double)) : NULL;
    if (edges->begin != NULL && edges->neighbour != NULL && (!valued || edges->value != NULL))
        return 1;
    free_edges(edges);
    return 0;
}

/* The numbers of the bits set in each row, one row after the other; where each row's end, when `begin` is given. */
void list_bits(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words, int32_t *out, int64_t *begin)
{
    int64_t k = 0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t w = 0; w < words; w++)
            for (uint64_t rest = bits[r * words + w]; rest != 0; rest &= rest - 1)
                out[k++] = (int32_t)(w * 64 + __builtin_ctzll(rest));
        if (begin != NULL)
            begin[r + 1] = k;
    }
}

int edges_of_bits(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words, edges_t *out)
{
    int64_t count = 0;
    for (ptrdiff_t at = 0; at < rows * words; at++)
        count += __builtin_popcountll(bits[at]);
    if (!make_room(out, rows, count, 0))
        return 0;
    out->n = rows, out->other = words * 64;
    list_bits(bits, rows, words, (int32_t *)out->neighbour, (int64_t *)out->begin);
    return 1;
}

/* The same graph by the lists of its other side; with `live_only`, of those of that side that have an edge. */
int turn(const edges_t *in, int live_only, edges_t *out)
{
    int64_t count = in->begin[in->n] - in->begin[0];
    int64_t *at = calloc((size_t)(in->other + 1), sizeof(int64_t)); /* how many, then where the next one goes */
    memset(out, 0, sizeof *out);
    if (at == NULL || !make_room(out, in->other, count, in->value != NULL)) {
        free(at);
        return 0;
    }
    const int32_t *from = in->neighbour;
    for (int64_t k = in->begin[0]; k < in->begin[in->n]; k++)
        at[from[k]]++;
    int64_t *begin = (int64_t *)out->begin, sum = 0;
    ptrdiff_t kept = 0;
    for (ptrdiff_t u = 0; u < in->other; u++) {
        int64_t degree = at[u];
        at[u] = sum;
        sum += degree;
        if (degree > 0 || !live_only)
            begin[++kept] = sum;
    }
    out->n = kept, out->other = in->n;
    int32_t *to = (int32_t *)out->neighbour;
    double *value = (double *)out->value;
    for (ptrdiff_t v = 0; v < in->n; v++)
        for (int64_t k = in->begin[v]; k < in->begin[v + 1]; k++) {
            int64_t place = at[from[k]]++;
            to[place] = (int32_t)v;
            if (value != NULL)
                value[place] = in->value[k];
        }
    free(at);
    return 1;
}

/* To a Gram matrix's lower triangle: each vertex of the other side adds the products of its edges' values. */
void add_pairs(const edges_t *far, double *gram, ptrdiff_t ld)
{
    for (ptrdiff_t u = 0; u < far->n; u++) {
        const int32_t *to = far->neighbour + far->begin[u];
        const double *value = far->value + far->begin[u];
        ptrdiff_t degree = (ptrdiff_t)(far->begin[u + 1] - far->begin[u]);
        for (ptrdiff_t a = 0; a < degree; a++) {
            double *row = gram + to[a] * ld, factor = value[a];
            for (ptrdiff_t b = 0; b <= a; b++)
                row[to[b]] += factor * value[b];
        }
    }
}

/* The same from the lists of its own side, values divided by `largest`: a slab of columns at a time as a dense matrix,
 * small enough for the second cache. 0: no memory. */
int add_slabs(const edges_t *near, double largest, double *gram, ptrdiff_t ld)
{
    double *slab = malloc((size_t)(ld * SLAB) * sizeof(double));
    int64_t *at = malloc((size_t)(near->n + 1) * sizeof(int64_t));
    if (slab != NULL && at != NULL) {
        memcpy(at, near->begin, (size_t)near->n * sizeof(int64_t));
        for (ptrdiff_t from = 0; from < near->other; from += SLAB) {
            memset(slab, 0, (size_t)(ld * SLAB) * sizeof(double));
            for (ptrdiff_t v = 0; v < near->n; v++)
                for (; at[v] < near->begin[v + 1] && near->neighbour[at[v]] < from + SLAB; at[v]++)
                    slab[v * SLAB + near->neighbour[at[v]] - from] = near->value[at[v]] / largest;
            add_gram(slab, SLAB, gram, ld);
        }
    }
    int done = slab != NULL && at != NULL;
    free(slab);
    free(at);
    return done;
}

/* Of the two ways to a Gram matrix; -1: no memory to tell. */
int slabs_are_quicker(const edges_t *near)
{
    int32_t *degree = calloc((size_t)near->other, sizeof(int32_t));
    if (degree == NULL)
        return -1;
    double pairs = 0.0;
    for (int64_t k = near->begin[0]; k < near->begin[near->n]; k++)
        degree[near->neighbour[k]]++;
    for (ptrdiff_t u = 0; u < near->other; u++)
        pairs += (double)degree[u] * (double)degree[u] / 2;
    free(degree);
    return pairs * PAIR_COST > (double)near->n * (double)near->n / 2 * (double)near->other;
}
