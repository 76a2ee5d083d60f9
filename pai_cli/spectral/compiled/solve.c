/* One problem: the Gram matrix of the smaller side of a range of left vertices, its two largest eigenvalues, the proof. */
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SMALL 1e-90 /* from here to its inverse, the inverse of the largest weight bears to be squared with room to spare */

typedef struct {
    const double *gram;
    ptrdiff_t ld;
} gram_t;

static void times_gram(const void *context, const double *x, double *y)
{
    const gram_t *it = context;
    symmetric_times(it->gram, it->ld, it->ld, x, y);
}

static double frobenius(const double *gram, ptrdiff_t n, ptrdiff_t ld)
{
    double below = 0.0, on = 0.0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double *row = gram + i * ld;
        ptrdiff_t end = i & ~(ptrdiff_t)3;
        below += dot(row, row, end);
        for (ptrdiff_t k = end; k < i; k++)
            below += row[k] * row[k];
        on += row[i] * row[i];
    }
    return sqrt(on + 2.0 * below);
}

static void all_values(const double *gram, ptrdiff_t n, ptrdiff_t ld, double *work, found_t *out)
{
    double *diagonal = work + ld * ld, *off = diagonal + ld, *rest = off + ld; /* rest: 2 ld */
    memcpy(work, gram, (size_t)(ld * ld) * sizeof(double));
    tridiagonalise(work, n, ld, diagonal, off, rest);
    if (!tridiagonal_values(diagonal, off, NULL, n)) {
        out->status = MISSED; /* the caller has another solver */
        return;
    }
    out->status = ALL_VALUES;
    out->value[0] = out->value[1] = -INFINITY;
    for (ptrdiff_t k = 0; k < n; k++) {
        if (diagonal[k] > out->value[0])
            out->value[1] = out->value[0], out->value[0] = diagonal[k];
        else if (diagonal[k] > out->value[1])
            out->value[1] = diagonal[k];
    }
    if (n == 1)
        out->value[1] = 0.0;
}

static void report(const ritz_t *ritz, found_t *out)
{
    for (int k = 0; k < 2; k++)
        out->value[k] = ritz->value[k], out->residual[k] = ritz->residual[k];
    out->products += (double)ritz->products;
}

static int proved(const double *gram, ptrdiff_t n, ptrdiff_t ld, const limits_t *limits, const ritz_t *ritz, double *work,
                  found_t *out)
{
    double first = fmax(ritz->value[0], 0.0), second = fmax(ritz->value[1], 0.0);
    /* as solver_table.shift_for has it */
    out->shift = second + limits->tolerance * sqrt(first * second) / 2 + 4 * (double)n * DBL_EPSILON * first;
    return certify(gram, n, ld, ritz, out->shift, work, &out->trace);
}

/* `vectors`: 2 ld. A proof that fails means a missed eigenvalue: a closer search, one more in the complement of its first
 * vector, and the proof again. */
static void iterate(const double *gram, ptrdiff_t n, ptrdiff_t ld, const limits_t *limits, double *vectors, double *work,
                    found_t *out)
{
    gram_t context = {gram, ld};
    operator_t plain = {times_gram, &context, n, ld};
    ritz_t ritz = {.vector = {vectors, vectors + ld}};
    int strict = (double)n > limits->proof_side;
    goal_t goal = {strict ? limits->tolerance : limits->tolerance / 8, (ptrdiff_t)limits->most, strict, 0};
    if (!krylov(&plain, &goal, 0, &ritz))
        return;
    report(&ritz, out);
    if (strict && ritz.converged) {
        if (limits->twice > 0.0) {
            if (!search_beside(&plain, &goal, &ritz))
                return;
            report(&ritz, out);
        }
        out->status = ritz.converged ? NOT_ASKED : NOT_CONVERGED;
        return;
    }
    out->status = !ritz.converged ? NOT_CONVERGED : proved(gram, n, ld, limits, &ritz, work, out) ? PROVED : MISSED;
    if (out->status != MISSED)
        return;
    goal.strict = 1; /* beside an equal value the error of the first is its residual, and not the square over a gap */
    if (!krylov(&plain, &goal, 0, &ritz) || !ritz.converged)
        return;
    report(&ritz, out);
    if (search_beside(&plain, &goal, &ritz) && ritz.converged) {
        report(&ritz, out);
        if (proved(gram, n, ld, limits, &ritz, work, out))
            out->status = PROVED;
    }
}

/* `work`: WORK(ld). */
void solve_gram(const double *gram, ptrdiff_t n, ptrdiff_t ld, const limits_t *limits, double *work, found_t *out)
{
    memset(out, 0, sizeof *out);
    out->status = NO_MEMORY, out->side = (double)n;
    out->frobenius = frobenius(gram, n, ld);
    if (n == 0)
        out->status = ALL_VALUES; /* a part without an edge: both values are 0 */
    else if ((double)n <= limits->direct_side)
        all_values(gram, n, ld, work, out);
    else
        iterate(gram, n, ld, limits, work + ld * ld, work, out);
}

/* Without a Gram matrix, so without a proof: near and far are the bits of both sides, or the edges. */
static void solve_free(const uint64_t *bits[2], const edges_t *edges, ptrdiff_t n, ptrdiff_t other, const limits_t *limits,
                       found_t *out)
{
    ptrdiff_t ld = fours(n);
    goal_t goal = {limits->tolerance, (ptrdiff_t)limits->most, 1, limits->twice > 0.0};
    double *vectors = malloc((size_t)(2 * ld) * sizeof(double));
    ritz_t ritz = {.vector = {vectors, vectors + ld}};
    out->side = (double)n;
    if (vectors != NULL && (bits != NULL ? free_of_bits(bits[0], n, bits[1], other, &goal, &ritz)
                                         : free_of_edges(edges, edges + 1, &goal, &ritz))) {
        report(&ritz, out);
        out->frobenius = ritz.value[0] * (double)(n + other) / (double)n; /* a product sums n + other terms, not n */
        out->status = ritz.converged ? NOT_ASKED : NOT_CONVERGED;
    }
    free(vectors);
}

static void solve_free_bits(const uint64_t *near, ptrdiff_t n, const uint64_t *far, ptrdiff_t other, const limits_t *limits,
                            found_t *out)
{
    const uint64_t *bits[2] = {near, far};
    edges_t edges[2];
    double kept = 0.0;
    for (ptrdiff_t at = 0; at < n * ((other + 63) / 64); at++)
        kept += (double)__builtin_popcountll(near[at]);
    if (kept > limits->few_edges * (double)n * (double)other) {
        solve_free(bits, NULL, n, other, limits, out);
        return;
    }
    if (!edges_of_bits(near, n, (other + 63) / 64, edges))
        return;
    if (turn(edges, 0, edges + 1)) {
        solve_free(NULL, edges, n, other, limits, out);
        free_edges(edges + 1);
    }
    free_edges(edges);
}

/* A 0/1 problem: `count` rows of bits, usually each with one set. The side with fewer live vertices is the near one. */
void solve_bits(const uint64_t *bits, ptrdiff_t words, ptrdiff_t count, const limits_t *limits, found_t *out)
{
    /* room for the right side's rows, or for the left side's once more, either with its padding */
    ptrdiff_t turned = (count + 63) / 64, other = (words * 64 + 4) * turned, same = (count + 4) * words;
    uint64_t *right = malloc((size_t)(other > same ? other : same) * sizeof(uint64_t));
    memset(out, 0, sizeof *out);
    out->status = NO_MEMORY;
    if (right == NULL)
        return;
    transpose_bits(bits, count, words, right, turned);
    ptrdiff_t live = count_live(right, words * 64, turned), n = count < live ? count : live, ld = fours(n);
    if ((double)n > limits->proof_side) { /* rows without a bit do no harm here, and keep their numbers */
        if (count <= live)
            solve_free_bits(bits, count, right, words * 64, limits, out);
        else
            solve_free_bits(right, words * 64, bits, count, limits, out);
        free(right);
        return;
    }
    ptrdiff_t width = count <= live ? words : turned;
    live_rows(right, words * 64, turned);
    if (count <= live) /* the left side after all: its rows again, with room for the padding */
        memcpy(right, bits, (size_t)(count * words) * sizeof(uint64_t));
    memset(right + n * width, 0, (size_t)((ld - n) * width) * sizeof(uint64_t));
    double *gram = malloc((size_t)(ld * ld + WORK(ld)) * sizeof(double));
    if (gram != NULL) {
        gram_of_bits(right, width, gram, ld);
        solve_gram(gram, n, ld, limits, gram + ld * ld, out);
    }
    free(gram);
    free(right);
}

/* Values are divided by the largest of a part, so that no square overflows or vanishes. */
static double largest_of(const edges_t *edges)
{
    double even = 0.0, odd = 0.0; /* two, as each has to wait for the one before */
    int64_t k = edges->begin[0], end = edges->begin[edges->n];
    for (; k + 2 <= end; k += 2) {
        even = edges->value[k] > even ? edges->value[k] : even;
        odd = edges->value[k + 1] > odd ? edges->value[k + 1] : odd;
    }
    if (k < end)
        even = fmax(even, edges->value[k]);
    double largest = fmax(even, odd);
    return largest > 0.0 ? largest : 1.0;
}

static void scale_down(edges_t *edges, double largest)
{
    double *value = (double *)edges->value;
    for (int64_t k = 0; k < edges->begin[edges->n]; k++)
        value[k] /= largest;
}

static void solve_free_lists(const edges_t *near, double largest, const limits_t *limits, found_t *out)
{
    edges_t sides[2];
    if (!turn(near, 0, sides + 1))
        return;
    scale_down(sides + 1, largest);
    if (turn(sides + 1, 0, sides)) { /* the near side again, with its values scaled */
        solve_free(NULL, sides, sides[0].n, sides[1].n, limits, out);
        free_edges(sides);
    }
    free_edges(sides + 1);
}

static void solve_lists(const edges_t *near, const edges_t *far, double largest, const limits_t *limits, found_t *out)
{
    ptrdiff_t n = near != NULL ? near->n : far->other, ld = fours(n);
    double *gram = malloc((size_t)(ld * ld + WORK(ld)) * sizeof(double));
    if (gram != NULL && (near != NULL ? gram_of_lists(near, 1.0 / largest, gram, ld)
                                      : gram_of_neighbours(far, 1.0 / largest, gram, ld)))
        solve_gram(gram, n, ld, limits, gram + ld * ld, out);
    free(gram);
}

/* By the Gram matrix of the lists' neighbours, which are given new numbers, without those that are in no list. */
static void solve_neighbours(const edges_t *edges, double largest, const limits_t *limits, found_t *out)
{
    int64_t first = edges->begin[0], count = edges->begin[edges->n] - first;
    int32_t *number = calloc((size_t)(edges->other + count + 1), sizeof(int32_t)), *to = number + edges->other;
    int64_t *begin = malloc((size_t)(edges->n + 1) * sizeof(int64_t));
    edges_t turned, far = {edges->n, 0, begin, to, edges->value + first};
    if (number != NULL && begin != NULL) {
        for (int64_t k = 0; k < count; k++)
            number[edges->neighbour[first + k]] = 1;
        for (ptrdiff_t u = 0; u < edges->other; u++)
            if (number[u] != 0)
                number[u] = (int32_t)far.other++;
        for (int64_t k = 0; k < count; k++)
            to[k] = number[edges->neighbour[first + k]];
        for (ptrdiff_t v = 0; v <= edges->n; v++)
            begin[v] = edges->begin[v] - first;
        if ((double)far.other <= limits->proof_side)
            solve_lists(NULL, &far, largest, limits, out);
        else if (turn(&far, 0, &turned)) {
            solve_free_lists(&turned, largest, limits, out);
            free_edges(&turned);
        }
    }
    free(number);
    free(begin);
}

static void solve_part(const edges_t *edges, ptrdiff_t touched, double largest, const limits_t *limits, found_t *out)
{
    if (edges->n > touched)
        solve_neighbours(edges, largest, limits, out);
    else if ((double)edges->n > limits->proof_side)
        solve_free_lists(edges, largest, limits, out);
    else
        solve_lists(edges, NULL, largest, limits, out);
}

/* The same of copies, where the inverse of the largest value does not bear to be squared. */
static void solve_far_from_1(const edges_t *edges, ptrdiff_t touched, double largest, const limits_t *limits, found_t *out)
{
    edges_t turned, again;
    if (!turn(edges, 0, &turned))
        return;
    scale_down(&turned, largest);
    if (turn(&turned, 0, &again)) {
        solve_part(&again, touched, 1.0, limits, out);
        free_edges(&again);
    }
    free_edges(&turned);
}

/* A weighted problem, by the lists of its left vertices, which touch `touched` right vertices. Its values are those of the
 * weights over the largest of them. */
void solve_edges(const edges_t *edges, ptrdiff_t touched, const limits_t *limits, found_t *out)
{
    double largest = largest_of(edges);
    memset(out, 0, sizeof *out);
    out->status = NO_MEMORY;
    (largest > SMALL && largest < 1 / SMALL ? solve_part : solve_far_from_1)(edges, touched, largest, limits, out);
}

/* All of a matrix of absolute values, `size` bytes each; the values found are those of the weights over the largest. */
void solve_weights(const void *weights, ptrdiff_t size, ptrdiff_t rows, ptrdiff_t columns, double largest,
                   const limits_t *limits, found_t *out)
{
    ptrdiff_t n = rows <= columns ? rows : columns, ld = fours(n);
    double *gram = malloc((size_t)(ld * ld + WORK(ld)) * sizeof(double));
    memset(out, 0, sizeof *out);
    out->status = NO_MEMORY;
    if (gram != NULL && gram_of_weights(weights, size, rows, columns, largest, gram, ld))
        solve_gram(gram, n, ld, limits, gram + ld * ld, out);
    free(gram);
}
