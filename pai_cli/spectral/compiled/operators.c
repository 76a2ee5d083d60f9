/* Products x -> A A^T x by the matrix itself, for sides whose Gram matrix would cost more than the answer. */
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#define TABLES 8 /* groups of eight entries at a time: 16 KiB of tables stay in the first cache */

/* All 256 sums of eight entries, the sum for a byte at that place. */
static void fill_table(const double *x, double *table)
{
    table[0] = 0.0;
    for (int bit = 0; bit < 8; bit++)
        for (int k = 0; k < 1 << bit; k++)
            table[(1 << bit) + k] = table[k] + x[bit];
}

/* y[r] = sum of x over the bits of row r, by table ("four Russians": Arlazarov, Dinic, Kronrod, Faradzhev 1970): one
 * addition for eight entries. `bytes`: entry (group, row) is a byte of row r. */
static void times_table(const uint8_t *bytes, ptrdiff_t groups, ptrdiff_t rows, const double *x, double *y)
{
    double table[TABLES][256];
    memset(y, 0, (size_t)rows * sizeof(double));
    for (ptrdiff_t g = 0; g < groups; g += TABLES) {
        const uint8_t *at[TABLES];
        for (ptrdiff_t k = 0; k < TABLES; k++) {
            at[k] = g + k < groups ? bytes + (g + k) * rows : NULL;
            if (at[k] != NULL)
                fill_table(x + 8 * (g + k), table[k]);
        }
        if (at[TABLES - 1] == NULL) { /* the last few groups */
            for (ptrdiff_t k = 0; at[k] != NULL; k++)
                for (ptrdiff_t r = 0; r < rows; r++)
                    y[r] += table[k][at[k][r]];
            break;
        }
        for (ptrdiff_t r = 0; r < rows; r++)
            y[r] += ((table[0][at[0][r]] + table[1][at[1][r]]) + (table[2][at[2][r]] + table[3][at[3][r]])) +
                    ((table[4][at[4][r]] + table[5][at[5][r]]) + (table[6][at[6][r]] + table[7][at[7][r]]));
    }
}

/* Rows of bits as bytes, all rows' first bytes together, then all second ones. */
static uint8_t *by_group(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words)
{
    uint8_t *bytes = malloc((size_t)(rows * words * 8) + 1);
    if (bytes == NULL)
        return NULL;
    for (ptrdiff_t w = 0; w < words; w++)
        for (ptrdiff_t r = 0; r < rows; r++)
            for (ptrdiff_t k = 0; k < 8; k++)
                bytes[(w * 8 + k) * rows + r] = (uint8_t)(bits[r * words + w] >> (8 * k));
    return bytes;
}

/* Products of both searches are counted. */
static int beside(const operator_t *operator, const goal_t *goal, ritz_t *ritz)
{
    ptrdiff_t products = ritz->products;
    int done = search_beside(operator, goal, ritz);
    ritz->products += products;
    return done;
}

static int search(const operator_t *operator, const goal_t *goal, ritz_t *ritz)
{
    return krylov(operator, goal, 0, ritz) && (!goal->twice || !ritz->converged || beside(operator, goal, ritz));
}

typedef struct {
    uint8_t *near, *far; /* the near side's rows (its entries are of the far one), and the far side's */
    ptrdiff_t n, other;
    double *between; /* a vector of the far side, room for whole words */
} tables_t;

static void times_tables(const void *context, const double *x, double *y)
{
    const tables_t *it = context;
    double *padded = it->between + (it->other + 63) / 64 * 64;
    memset(padded, 0, (size_t)((it->n + 63) / 64 * 64) * sizeof(double));
    memcpy(padded, x, (size_t)it->n * sizeof(double));
    times_table(it->far, (it->n + 63) / 64 * 8, it->other, padded, it->between);
    times_table(it->near, (it->other + 63) / 64 * 8, it->n, it->between, y);
    memset(y + it->n, 0, (size_t)(fours(it->n) - it->n) * sizeof(double));
}

/* The two best Ritz pairs of A A^T, A given by bits of both its sides; 0: no memory. */
int free_of_bits(const uint64_t *near, ptrdiff_t n, const uint64_t *far, ptrdiff_t other, const goal_t *goal, ritz_t *ritz)
{
    ptrdiff_t wide = (other + 63) / 64 * 64 + (n + 63) / 64 * 64;
    tables_t tables = {by_group(near, n, (other + 63) / 64), by_group(far, other, (n + 63) / 64), n, other,
                       calloc((size_t)wide, sizeof(double))};
    operator_t operator = {times_tables, &tables, n, fours(n)};
    int done = tables.near != NULL && tables.far != NULL && tables.between != NULL && search(&operator, goal, ritz);
    free(tables.near);
    free(tables.far);
    free(tables.between);
    return done;
}

/* y[v] = sum over v's edges of value * x[neighbour]. */
static void times_values(const edges_t *edges, const double *x, double *y)
{
    const int32_t *to = edges->neighbour;
    const double *value = edges->value;
    for (ptrdiff_t v = 0; v < edges->n; v++) {
        double a = 0.0, b = 0.0, c = 0.0, d = 0.0;
        int64_t k = edges->begin[v], end = edges->begin[v + 1];
        for (; k + 4 <= end; k += 4) {
            a += value[k] * x[to[k]], b += value[k + 1] * x[to[k + 1]];
            c += value[k + 2] * x[to[k + 2]], d += value[k + 3] * x[to[k + 3]];
        }
        for (; k < end; k++)
            a += value[k] * x[to[k]];
        y[v] = (a + b) + (c + d);
    }
}

/* The same, every value being 1. */
static void times_ones(const edges_t *edges, const double *x, double *y)
{
    const int32_t *to = edges->neighbour;
    for (ptrdiff_t v = 0; v < edges->n; v++) {
        double a = 0.0, b = 0.0, c = 0.0, d = 0.0;
        int64_t k = edges->begin[v], end = edges->begin[v + 1];
        for (; k + 4 <= end; k += 4)
            a += x[to[k]], b += x[to[k + 1]], c += x[to[k + 2]], d += x[to[k + 3]];
        for (; k < end; k++)
            a += x[to[k]];
        y[v] = (a + b) + (c + d);
    }
}

typedef struct {
    const edges_t *near, *far;
    double *between;
} both_t;

static void times_both(const void *context, const double *x, double *y)
{
    const both_t *it = context;
    (it->far->value == NULL ? times_ones : times_values)(it->far, x, it->between);
    (it->near->value == NULL ? times_ones : times_values)(it->near, it->between, y);
    memset(y + it->near->n, 0, (size_t)(fours(it->near->n) - it->near->n) * sizeof(double));
}

/* The same for A given by the edges of both its sides. */
int free_of_edges(const edges_t *near, const edges_t *far, const goal_t *goal, ritz_t *ritz)
{
    both_t both = {near, far, malloc((size_t)(far->n + 1) * sizeof(double))};
    operator_t operator = {times_both, &both, near->n, fours(near->n)};
    int done = both.between != NULL && search(&operator, goal, ritz);
    free(both.between);
    return done;
}
