/* How many singular values of a graph are above a number: symmetric elimination of M = [[s I, A], [A^T, s I]] without a
 * matrix, the vertex of least degree first, until what is left is better kept dense.
 *
 * M has the eigenvalues s +- sigma_i and s. Elimination takes M apart into L D L^T beside a rest S, and by Sylvester and
 * Haynsworth M has as many negative eigenvalues as D and S together. Nothing is exchanged for stability: how far rounding
 * has moved M is bounded as it happens, from the factors themselves (inertia.py says how it is used).
 */
#include "kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_GROWTH 0x1p20 /* of s: a pivot so small that it would change entries by more waits until it is another */
#define DENSE 16       /* a rest in which every vertex has one of so many others as a neighbour is left to be dense */
#define LAST ((ptrdiff_t)32) /* vertices: so few are no work in any form */
#define UNLISTED (-2) /* in the place of a vertex before it in a list */
#define GONE (-3)     /* eliminated */

typedef struct {
    ptrdiff_t count, room;
    double *value; /* of each neighbour; what numbers they have stands behind the room */
    int32_t *to;   /* by increasing number */
} row_t;

typedef struct {
    ptrdiff_t n, left; /* vertices, and those not eliminated */
    row_t *row, merged;
    double *diagonal, *weight;        /* weight: row sums of |L| |D| |L^T| */
    int32_t *updates;                 /* eliminated neighbours */
    int32_t *first, *last;            /* of the vertices of each degree, -1: there is none */
    int32_t *next, *previous;         /* in its list, -1 at the ends */
    ptrdiff_t least;                  /* no vertex in a list has a smaller degree */
    double entries, work;
} graph_t;

static int room_for(row_t *row, ptrdiff_t count)
{
    if (count <= row->room)
        return 1;
    ptrdiff_t room = count + count / 2 + 4;
    double *value = malloc((size_t)room * (sizeof(double) + sizeof(int32_t)));
    if (value == NULL)
        return 0;
    int32_t *to = (int32_t *)(value + room);
    if (row->count > 0) {
        memcpy(value, row->value, (size_t)row->count * sizeof(double));
        memcpy(to, row->to, (size_t)row->count * sizeof(int32_t));
    }
    free(row->value);
    row->value = value, row->to = to, row->room = room;
    return 1;
}

static void empty(row_t *row)
{
    free(row->value);
    memset(row, 0, sizeof *row);
}

/* At the end of its list: what was changed last goes last, so that of equals those come first that are apart from each
 * other, and no entry is updated again and again. */
static void list(graph_t *graph, ptrdiff_t v)
{
    ptrdiff_t degree = graph->row[v].count;
    int32_t other = graph->last[degree];
    graph->next[v] = -1, graph->previous[v] = other;
    if (other >= 0)
        graph->next[other] = (int32_t)v;
    else
        graph->first[degree] = (int32_t)v;
    graph->last[degree] = (int32_t)v;
    graph->least = degree < graph->least ? degree : graph->least;
}

static void unlist(graph_t *graph, ptrdiff_t v, ptrdiff_t degree)
{
    if (graph->previous[v] == UNLISTED)
        return;
    if (graph->previous[v] >= 0)
        graph->next[graph->previous[v]] = graph->next[v];
    else
        graph->first[degree] = graph->next[v];
    if (graph->next[v] >= 0)
        graph->previous[graph->next[v]] = graph->previous[v];
    else
        graph->last[degree] = graph->previous[v];
    graph->previous[v] = UNLISTED;
}

static void close_graph(graph_t *graph)
{
    for (ptrdiff_t v = 0; graph->row != NULL && v < graph->n; v++)
        free(graph->row[v].value);
    free(graph->merged.value);
    free(graph->row);
    free(graph->diagonal);
    free(graph->updates);
}

static int open_graph(graph_t *graph, const edges_t *near, const edges_t *far, double shift)
{
    ptrdiff_t n = near->n + far->n;
    memset(graph, 0, sizeof *graph);
    graph->n = graph->left = graph->least = n;
    graph->row = calloc((size_t)n, sizeof(row_t));
    graph->diagonal = malloc((size_t)(2 * n) * sizeof(double));
    graph->updates = malloc((size_t)(5 * n + 2) * sizeof(int32_t));
    if (graph->row == NULL || graph->diagonal == NULL || graph->updates == NULL)
        return 0;
    graph->weight = graph->diagonal + n;
    graph->first = graph->updates + n, graph->last = graph->first + n + 1;
    graph->next = graph->last + n + 1, graph->previous = graph->next + n;
    memset(graph->first, -1, (size_t)(2 * n + 2) * sizeof(int32_t));
    for (ptrdiff_t v = 0; v < n; v++) {
        const edges_t *side = v < near->n ? near : far;
        ptrdiff_t at = v < near->n ? v : v - near->n, behind = v < near->n ? near->n : 0;
        int64_t begin = side->begin[at], end = side->begin[at + 1];
        row_t *row = graph->row + v;
        if (end > begin && !room_for(row, (ptrdiff_t)(end - begin)))
            return 0;
        for (int64_t k = begin; k < end; k++) {
            row->to[row->count] = (int32_t)(side->neighbour[k] + behind);
            row->value[row->count++] = side->value[k];
        }
        graph->diagonal[v] = shift, graph->weight[v] = 0.0, graph->updates[v] = 0;
        graph->entries += (double)row->count;
        list(graph, v);
    }
    return 1;
}

/* Row i less the outer product of the column of v, whose neighbours are `column`: entry (i, j) by c_i c_j / pivot. */
static int update(graph_t *graph, ptrdiff_t v, const row_t *column, ptrdiff_t place, double inverse)
{
    ptrdiff_t i = column->to[place], a = 0, b = 0, count = 0;
    row_t *row = graph->row + i, *merged = &graph->merged;
    double own = column->value[place];
    if (!room_for(merged, row->count + column->count))
        return 0;
    while (a < row->count || b < column->count) {
        ptrdiff_t p = a < row->count ? row->to[a] : graph->n, q = b < column->count ? column->to[b] : graph->n;
        if (p == v || q == i) {
            a += p == v, b += q == i;
            continue;
        }
        double value = p <= q ? row->value[a] : 0.0;
        if (q <= p)
            value -= own * column->value[b] * inverse;
        merged->to[count] = (int32_t)(p <= q ? p : q), merged->value[count++] = value;
        a += p <= q, b += q <= p;
    }
    graph->work += (double)(row->count + column->count);
    graph->entries += (double)(count - row->count);
    unlist(graph, i, row->count);
    if (!room_for(row, count))
        return 0;
    memcpy(row->to, merged->to, (size_t)count * sizeof(int32_t));
    memcpy(row->value, merged->value, (size_t)count * sizeof(double));
    row->count = count;
    list(graph, i);
    graph->diagonal[i] -= own * own * inverse;
    graph->updates[i]++;
    return 1;
}

/* Eliminate v, which is in no list any more. |l_i| |d| sum |l_j| is the weight that it adds to row i. */
static int eliminate(graph_t *graph, ptrdiff_t v)
{
    row_t column = graph->row[v];
    double pivot = graph->diagonal[v], inverse = 1.0 / pivot, sum = 1.0;
    memset(graph->row + v, 0, sizeof column);
    graph->previous[v] = GONE;
    graph->left--;
    graph->entries -= (double)column.count;
    for (ptrdiff_t k = 0; k < column.count; k++)
        sum += fabs(column.value[k] * inverse);
    graph->weight[v] += fabs(pivot) * sum;
    int fine = 1;
    for (ptrdiff_t k = 0; k < column.count && fine; k++) {
        graph->weight[column.to[k]] += fabs(column.value[k]) * sum;
        fine = update(graph, v, &column, k, inverse);
    }
    empty(&column);
    return fine;
}

/* The vertex of least degree, taken from its list; -1: none is in a list. */
static ptrdiff_t next_vertex(graph_t *graph)
{
    while (graph->least <= graph->n && graph->first[graph->least] < 0)
        graph->least++;
    if (graph->least > graph->n)
        return -1;
    ptrdiff_t v = graph->first[graph->least];
    unlist(graph, v, graph->least);
    return v;
}

/* Whether eliminating v keeps all that it touches small; without neighbours it touches nothing. Nothing is squared: the
   square of a small weight is 0, and a pivot of 0 would pass. */
static int is_harmless(const graph_t *graph, ptrdiff_t v, double shift)
{
    const row_t *row = graph->row + v;
    double largest = 0.0;
    for (ptrdiff_t k = 0; k < row->count; k++)
        largest = fmax(largest, fabs(row->value[k]));
    double pivot = fabs(graph->diagonal[v]);
    if (largest == 0.0)
        return 1;
    return isfinite(1.0 / pivot) && largest <= MOST_GROWTH * shift * (pivot / largest);
}

static int run(graph_t *graph, const elimination_t *limits, eliminated_t *out)
{
    while (graph->left > LAST) {
        ptrdiff_t v = next_vertex(graph);
        if (v < 0)
            break;
        if ((double)graph->left <= limits->most_rest && graph->row[v].count * DENSE >= graph->left) {
            list(graph, v);
            break;
        }
        if (graph->entries > limits->most_entries || graph->work > limits->most_work)
            return TOO_MUCH;
        if (!is_harmless(graph, v, limits->shift))
            continue; /* listed again when a neighbour goes */
        out->below += graph->diagonal[v] < 0.0;
        if (!eliminate(graph, v))
            return NO_ROOM;
        if (out->below > limits->most_below)
            break;
    }
    return (double)graph->left > limits->most_rest && out->below <= limits->most_below ? TOO_MUCH : ELIMINATED;
}

/* What the sums and the rest come to. An entry that took part in k updates is off by gamma_(k+3) of what they summed up. */
static void sum_up(const graph_t *graph, eliminated_t *out)
{
    double most = 0.0;
    for (ptrdiff_t v = 0; v < graph->n; v++) {
        const row_t *row = graph->row + v;
        double weight = graph->weight[v] + (graph->previous[v] == GONE ? 0.0 : fabs(graph->diagonal[v]));
        for (ptrdiff_t k = 0; k < row->count; k++)
            weight += fabs(row->value[k]);
        if (!(weight <= out->weight) && !isnan(out->weight)) /* NaN stays */
            out->weight = weight;
        most = fmax(most, (double)graph->updates[v]);
    }
    out->updates = most, out->work = graph->work, out->rest = (double)graph->left;
}

/* The rest as a dense matrix of `rest` rows; NULL: no memory. */
static double *rest_of(graph_t *graph)
{
    ptrdiff_t count = graph->left, at = 0;
    int32_t *place = graph->first; /* no list is needed any more */
    double *rest = calloc((size_t)(count * count + 1), sizeof(double));
    for (ptrdiff_t v = 0; v < graph->n; v++)
        place[v] = graph->previous[v] == GONE ? -1 : (int32_t)at++;
    for (ptrdiff_t v = 0; rest != NULL && v < graph->n; v++) {
        row_t *row = graph->row + v;
        if (place[v] < 0)
            continue;
        double *out = rest + place[v] * count;
        out[place[v]] = graph->diagonal[v];
        for (ptrdiff_t k = 0; k < row->count; k++)
            out[place[row->to[k]]] = row->value[k];
        empty(row);
    }
    return rest;
}

/* Of a graph whose edges have values: `out`, and where it was ELIMINATED the rest, which the caller frees. */
double *eliminate_edges(const edges_t *near, const elimination_t *limits, eliminated_t *out)
{
    graph_t graph = {0};
    edges_t far;
    double *rest = NULL;
    memset(out, 0, sizeof *out);
    out->status = NO_ROOM;
    if (!turn(near, 0, &far))
        return NULL;
    int opened = open_graph(&graph, near, &far, limits->shift);
    free_edges(&far);
    if (opened)
        out->status = run(&graph, limits, out);
    if (out->status == ELIMINATED) {
        sum_up(&graph, out);
        if (out->below > limits->most_below)
            out->rest = 0.0; /* more are below 0 already than matter, whatever the rest has */
        else if ((rest = rest_of(&graph)) == NULL)
            out->status = NO_ROOM;
    }
    close_graph(&graph);
    return rest;
}
