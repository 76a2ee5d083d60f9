/* The compiled part of the spectral engine: small dense problems without the overhead of a call for each step.
 *
 * Nothing here knows Python; binding.c does. Sizes: `n` is a problem's own side, `ld` the length of a stored row, n
 * rounded up to a multiple of 4. What lies between is zero, so that loops over rows need no tail. A symmetric matrix is
 * its lower triangle, row by row; what stands above the diagonal never reaches a result.
 */
#ifndef PAI_KERNEL_H
#define PAI_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bits are packed for little-endian machines; without this part NumPy does the work"
#endif

/* Built for the plain instruction set and, where the loader can choose, for those with wide vectors as well. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define HAS_WIDEST /* what gains from vectors of 512 bits is written for them, and chosen when it runs */
#define WIDEST __attribute__((target("arch=x86-64-v4,avx512vpopcntdq")))
#define RUNS_WIDEST (__builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("x86-64-v4"))
#else
#define WIDE
#endif

#define ALWAYS static inline __attribute__((always_inline))

typedef double quad __attribute__((vector_size(32)));
typedef double quad_u __attribute__((vector_size(32), aligned(8))); /* the same at any address */

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef long long order __attribute__((vector_size(32)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (order){i, j, k, l})
#endif

ALWAYS quad load(const double *at) { return *(const quad_u *)at; }
ALWAYS void store(double *at, quad value) { *(quad_u *)at = value; }
ALWAYS double total(quad value) { return (value[0] + value[1]) + (value[2] + value[3]); }
ALWAYS ptrdiff_t fours(ptrdiff_t n) { return (n + 3) & ~(ptrdiff_t)3; }

/* bits.c: 0/1 matrices, 64 entries a word, rows of whole words */
void pack_columns(const uint8_t *mask, ptrdiff_t rows, ptrdiff_t columns, uint64_t *out, int64_t *degrees, uint64_t *scratch);
ptrdiff_t arrange(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words, uint64_t *out, int64_t *row, int64_t *degree,
                  int64_t *scratch);
void transpose_bits(const uint64_t *in, ptrdiff_t rows, ptrdiff_t words, uint64_t *out, ptrdiff_t out_words);
ptrdiff_t count_live(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words);
void live_rows(uint64_t *bits, ptrdiff_t rows, ptrdiff_t words);
void gram_of_bits(const uint64_t *bits, ptrdiff_t words, double *gram, ptrdiff_t ld);
ptrdiff_t components_of_bits(const uint64_t *bits, ptrdiff_t left, ptrdiff_t words, uint64_t *reached, int32_t *parent);

/* dense.c: vectors, symmetric products, Cholesky */
#define PANEL 8 /* columns of a matrix that are eliminated at a time */
#define WORK(ld) ((ld) * (ld) + 4 * (ld) + PANEL * ((ld) + 4)) /* of whoever solves or proves a matrix of ld rows */
double dot(const double *x, const double *y, ptrdiff_t ld);
void axpy(double factor, const double *x, double *y, ptrdiff_t ld);
void take_out(const double *vectors, ptrdiff_t count, double *x, ptrdiff_t ld);
void symmetric_times(const double *gram, ptrdiff_t rows, ptrdiff_t ld, const double *x, double *y);
int cholesky(double *matrix, ptrdiff_t ld, double *panel);
void add_gram(const double *rows, ptrdiff_t length, double *gram, ptrdiff_t ld);

/* tridiagonal.c: symmetric tridiagonal matrices */
int tridiagonal_values(double *diagonal, double *off, double *last, ptrdiff_t n);
void tridiagonal_vector(const double *diagonal, const double *off, ptrdiff_t n, double value, double *out, double *work);
#define TOP 3 /* values that the iteration looks at: the two asked for, and the next, which their errors depend on */
void largest_values(const double *diagonal, const double *off, ptrdiff_t n, double high, double near, double top[TOP],
                    double last[TOP]);
void tridiagonalise(double *matrix, ptrdiff_t n, ptrdiff_t ld, double *diagonal, double *off, double *work);

/* power.c: the two largest eigenvalues of a symmetric operator, and the proof that they are */
typedef struct {
    void (*times)(const void *context, const double *x, double *y); /* y = A x; entries past n are and stay zero */
    const void *context;
    ptrdiff_t n, ld;
} operator_t;

typedef struct {         /* when to stop */
    double tolerance;    /* error of a value, over sqrt(value_1 value_2) */
    ptrdiff_t most;      /* products */
    int strict;          /* the residual itself is held to it, not the error it is thought to mean */
    int twice;           /* look again in the complement of the first vector */
} goal_t;

typedef struct {
    double value[2];     /* Rayleigh-Ritz values, the larger first */
    double residual[2];  /* norms of A v - value v */
    double *vector[2];   /* ld entries each, orthonormal up to rounding; given by the caller */
    ptrdiff_t products;
    int converged;
} ritz_t;

int krylov(const operator_t *operator, const goal_t *goal, uint64_t seed, ritz_t *ritz);
int search_beside(const operator_t *operator, const goal_t *goal, ritz_t *ritz);
int certify(const double *gram, ptrdiff_t n, ptrdiff_t ld, const ritz_t *ritz, double shift, double *work, double *trace);

/* edges.c: a graph as lists of neighbours */
typedef struct {
    ptrdiff_t n, other;      /* vertices with a list, and vertices on the other side */
    const int64_t *begin;    /* n + 1: where each list begins */
    const int32_t *neighbour; /* by increasing number */
    const double *value;     /* of each edge; NULL: 1 */
} edges_t;

int turn(const edges_t *in, int live_only, edges_t *out);
void list_bits(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words, int32_t *out, int64_t *begin);
int edges_of_bits(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words, edges_t *out);
void free_edges(edges_t *edges);
void weights_of_edges(const edges_t *edges, const int64_t *place, const void *weights, ptrdiff_t width, ptrdiff_t size,
                      double *value);

/* weights.c: Gram matrices of weights */
int gram_of_lists(const edges_t *near, double factor, double *gram, ptrdiff_t ld);
int gram_of_neighbours(const edges_t *far, double factor, double *gram, ptrdiff_t ld);
int gram_of_weights(const void *weights, ptrdiff_t size, ptrdiff_t rows, ptrdiff_t columns, double largest, double *gram,
                    ptrdiff_t ld);

/* solve.c: problems of one layer, each a range of its left vertices. These structures are shared with Python
 * (solver_table.py): all members are doubles. */
enum status { ALL_VALUES, PROVED, MISSED, NOT_CONVERGED, NO_MEMORY, NOT_ASKED };

typedef struct {
    double tolerance;    /* error bound asked for, over sigma_1 */
    double most;         /* products at which to give up */
    double direct_side;  /* up to this side: all eigenvalues */
    double proof_side;   /* up to this side: a Gram matrix, and a proof */
    double few_edges;    /* up to this density a product by lists of neighbours is quicker than one by tables */
    double twice;        /* where nothing is proved: look for a second eigenvalue equal to the first */
} limits_t;

typedef struct {
    double status, side, value[2], residual[2], shift, trace, frobenius, products;
} found_t;

void solve_bits(const uint64_t *bits, ptrdiff_t words, ptrdiff_t count, const limits_t *limits, found_t *out);
void solve_edges(const edges_t *edges, ptrdiff_t touched, const limits_t *limits, found_t *out);
void solve_weights(const void *weights, ptrdiff_t size, ptrdiff_t rows, ptrdiff_t columns, double largest,
                   const limits_t *limits, found_t *out);
void solve_gram(const double *gram, ptrdiff_t n, ptrdiff_t ld, const limits_t *limits, double *work, found_t *out);

/* elimination.c: how many singular values are above a number. All members are doubles (inertia.py has them, too). */
enum eliminated { ELIMINATED, TOO_MUCH, NO_ROOM };

typedef struct {
    double shift;        /* the number: singular values above it are counted */
    double most_below;   /* once more are known to be above, the rest does not matter */
    double most_rest;    /* vertices of a rest that is left to be dense */
    double most_entries; /* of what is kept at once */
    double most_work;    /* entries that are read, where to give up */
} elimination_t;

typedef struct {
    double status, below, weight, updates, rest, work; /* below: pivots below 0; weight: of |L| |D| |L^T| + |S|, a row's sum */
} eliminated_t;

double *eliminate_edges(const edges_t *near, const elimination_t *limits, eliminated_t *out);

/* operators.c: the same without a Gram matrix */
int free_of_bits(const uint64_t *near, ptrdiff_t n, const uint64_t *far, ptrdiff_t other, const goal_t *goal, ritz_t *ritz);
int free_of_edges(const edges_t *near, const edges_t *far, const goal_t *goal, ritz_t *ritz);

#endif
