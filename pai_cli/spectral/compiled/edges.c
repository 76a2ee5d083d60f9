/* A graph as lists of neighbours, for few edges and for weights. */
#include "kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* The weights of the edges, list by list, as absolute values: those of row r and column c for an edge between vertex
 * place[c] and r; place[c] is -1 for a column without a list. Column by column, as neighbours lie in one line of a cache.
 * `size`: bytes of a weight. */
void weights_of_edges(const edges_t *edges, const int64_t *place, const void *weights, ptrdiff_t width, ptrdiff_t size,
                      double *value)
{
    const float *single = weights;
    const double *twice = weights;
    const int32_t *row = edges->neighbour;
    for (ptrdiff_t c = 0; c < width; c++) {
        if (place[c] < 0)
            continue;
        int64_t k = edges->begin[place[c]], end = edges->begin[place[c] + 1];
        if (size == sizeof(float))
            for (; k < end; k++)
                value[k] = fabs((double)single[row[k] * width + c]);
        else
            for (; k < end; k++)
                value[k] = fabs(twice[row[k] * width + c]);
    }
}
