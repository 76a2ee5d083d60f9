/* Block power iteration with one column, every power kept (Lanczos with full reorthogonalisation), for the two largest
 * eigenvalues of a positive semidefinite operator; and the factorisation that proves them to be the largest.
 *
 * One column sees a multiple eigenvalue once. That is left to the proof: it fails, and the caller looks again in the
 * complement of what was found.
 */
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LOOK 8 /* products before the first Rayleigh-Ritz step */
#define NEARLY 2e-15 /* of the norm: as near as a Ritz value is looked for */
#define CLOSE 1e-6 /* of the norm: values so near each other share their vectors' last components as rounding has it */
#define SAME 1e-6    /* part of a unit vector outside another, under which the two are one */
#define EAGER 0.7   /* of the products that an error is likely to need still, before it is looked at again */
#define SPENT 1e-10  /* of a direction's length: what is left below that is mostly rounding */

typedef struct {
    ptrdiff_t room, width; /* basis vectors there is room for, and that there are */
    double *basis;         /* room rows of ld */
    double *alpha, *beta;  /* the projection of the operator: tridiagonal */
    double *values, *off, *last, *work, *turn; /* of its eigenproblem */
} space_t;

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state)
{
    return (double)(splitmix(state) >> 11) * 0x1p-52 - 1.0;
}

static int open_space(space_t *space, ptrdiff_t room, ptrdiff_t ld)
{
    space->room = room, space->width = 0;
    space->basis = malloc((size_t)(room * ld + 12 * room) * sizeof(double));
    if (space->basis == NULL)
        return 0;
    space->alpha = space->basis + room * ld;
    space->beta = space->alpha + room;
    space->values = space->beta + room, space->off = space->values + room, space->last = space->off + room;
    space->turn = space->last + room, space->work = space->turn + 2 * room; /* 5 room left of 12 */
    return 1;
}

/* Take from `x` what lies in the basis; the norm of what is left. */
static double outside(const space_t *space, ptrdiff_t ld, double *x)
{
    take_out(space->basis, space->width, x, ld);
    return sqrt(dot(x, x, ld));
}

/* Append x / norm. */
static void append(space_t *space, ptrdiff_t ld, const double *x, double norm)
{
    double *v = space->basis + space->width++ * ld;
    for (ptrdiff_t k = 0; k < ld; k++)
        v[k] = x[k] / norm;
}

/* Multiply the last basis vector, and append the part of its image that lies outside; 0 when nothing does. */
static int extend(const operator_t *operator, space_t *space, double *image)
{
    ptrdiff_t ld = operator->ld, j = space->width - 1;
    const double *v = space->basis + j * ld;
    operator->times(operator->context, v, image);
    double size = sqrt(dot(image, image, ld));
    space->alpha[j] = dot(v, image, ld);
    double left = outside(space, ld, image);
    if (left < 0.5 * size)
        left = outside(space, ld, image); /* rounding of what was taken away is not small against what is left */
    space->beta[j] = left <= SPENT * size ? 0.0 : left;
    if (space->beta[j] == 0.0 || space->width == space->room)
        return 0;
    append(space, ld, image, left);
    return 1;
}

static double ritz_error(double residual, double gap)
{
    return gap > residual ? residual * residual / gap : residual;
}

/* How far the two largest of three Ritz values, with residuals `error`, are from as exact as asked: up to 1 they are. */
static double excess(const double *error, const double top[3], const goal_t *goal, ptrdiff_t n)
{
    double first = fmax(top[0], 0.0), second = fmax(top[1], 0.0);
    double most = fmax(goal->tolerance * sqrt(first * second), (double)n * DBL_EPSILON * first);
    double one = goal->strict ? error[0] : ritz_error(error[0], top[0] - top[1]);
    double two = goal->strict ? error[1] : ritz_error(error[1], top[1] - top[2]);
    if (!(one >= 0.0 && two >= 0.0))
        return INFINITY; /* elimination that overflowed tells nothing */
    double worse = fmax(one, two);
    return worse > 0.0 ? worse / most : 0.0;
}

/* Whether the two best Ritz values of the first `width` columns are as exact as asked; sets the three best. A value is off by
 * about residual^2 / gap to the rest of the spectrum, and by no more than its residual. */
static int settled(const space_t *space, ptrdiff_t width, const goal_t *goal, ptrdiff_t n, double top[3])
{
    top[0] = top[1] = top[2] = 0.0;
    memcpy(space->values, space->alpha, (size_t)width * sizeof(double));
    memcpy(space->off, space->beta, (size_t)width * sizeof(double));
    if (!tridiagonal_values(space->values, space->off, space->last, width))
        return 0;
    double end[3] = {0.0, 0.0, 0.0};
    top[0] = top[1] = top[2] = -INFINITY;
    for (ptrdiff_t k = 0; k < width; k++) {
        double value = space->values[k], last = fabs(space->last[k]);
        for (int rank = 0; rank < 3; rank++)
            if (value > top[rank]) {
                double v = top[rank], l = end[rank];
                top[rank] = value, end[rank] = last, value = v, last = l;
            }
    }
    double beta = space->beta[width - 1];
    if (beta == 0.0 || width == n)
        return 1;
    if (width < 3)
        return 0;
    double error[2] = {beta * end[0], beta * end[1]};
    return excess(error, top, goal, n) <= 1.0;
}

/* `settled` in some 300 width operations and not 60 width^2: by three values, which are found from those of a look before,
 * in `top`, or from 0. Of values close to each other it is `asked` itself. `far`: how far it is, as of `excess`. */
static int settled_by_sweeps(const space_t *space, ptrdiff_t width, const goal_t *goal, ptrdiff_t n, double top[3], int *asked,
                             double *far)
{
    int apart = 1;
    double high = 0.0, error[3] = {INFINITY, INFINITY, INFINITY}, beta = space->beta[width - 1];
    for (ptrdiff_t k = 0; k < width; k++) /* Gershgorin */
        high = fmax(high, space->alpha[k] + (k > 0 ? space->beta[k - 1] : 0.0) + (k + 1 < width ? space->beta[k] : 0.0));
    largest_values(space->alpha, space->beta, width, high * (1 + NEARLY), NEARLY * high, top, error);
    for (int rank = 0; rank < TOP; rank++) {
        error[rank] *= beta;
        apart = apart && (rank == 0 || top[rank - 1] - top[rank] >= CLOSE * high);
    }
    *far = excess(error, top, goal, n);
    if (!(*far <= 1.0))
        return 0;
    *asked = !apart;
    return apart || settled(space, width, goal, n, top);
}

/* The largest number of columns, less than `width`, whose two best Ritz values are as exact as asked; else `width`. Not every
 * one was looked at on the way, and errors rise again where rounding brings in a second copy of a double eigenvalue. */
static ptrdiff_t settled_before(const space_t *space, ptrdiff_t width, const goal_t *goal, ptrdiff_t n, double top[3])
{
    double best[3] = {top[0], top[1], top[2]}, far;
    for (ptrdiff_t w = width - 1; w >= FIRST_LOOK; w--) {
        int asked;
        if (settled_by_sweeps(space, w, goal, n, best, &asked, &far)) {
            memcpy(top, best, sizeof best);
            return w;
        }
    }
    return width;
}

/* Ritz vector number `rank` of the first `width` columns. */
static void ritz_vector(const space_t *space, ptrdiff_t ld, ptrdiff_t width, double value, int rank, ritz_t *ritz)
{
    double *turn = space->turn + rank * space->room, *out = ritz->vector[rank];
    memset(out, 0, (size_t)ld * sizeof(double));
    if (width > rank) {
        tridiagonal_vector(space->alpha, space->beta, width, value, turn, space->work);
        for (ptrdiff_t k = 0; k < width; k++)
            axpy(turn[k], space->basis + k * ld, out, ld);
    }
    double norm = sqrt(dot(out, out, ld));
    for (ptrdiff_t k = 0; k < ld && norm > 0.0; k++)
        out[k] /= norm;
}

static void rotate(double c, double s, double *x, double *y, ptrdiff_t ld)
{
    for (ptrdiff_t k = 0; k < ld; k++) {
        double a = x[k], b = y[k];
        x[k] = c * a + s * b, y[k] = c * b - s * a;
    }
}

/* Make y orthogonal to x, and its norm 1. Of two vectors nearly the same (where rounding has brought in a second copy of a
 * double eigenvalue, inverse iteration gives one vector twice) only rounding would be left: y becomes 0. */
static int make_orthogonal(const double *x, double *y, ptrdiff_t ld)
{
    for (int pass = 0; pass < 2; pass++) {
        axpy(-dot(x, y, ld), x, y, ld);
        double norm = sqrt(dot(y, y, ld));
        if (norm < SAME) {
            memset(y, 0, (size_t)ld * sizeof(double));
            return 0;
        }
        for (ptrdiff_t k = 0; k < ld; k++)
            y[k] /= norm;
    }
    return 1;
}

/* Rayleigh-Ritz on the two vectors themselves, with fresh products and not from the recurrence. `images`: 2 ld. */
static void settle(const operator_t *operator, double *images, ritz_t *ritz)
{
    ptrdiff_t ld = operator->ld;
    double *x = ritz->vector[0], *y = ritz->vector[1], *ax = images, *ay = images + ld;
    int alone = !make_orthogonal(x, y, ld);
    operator->times(operator->context, x, ax);
    operator->times(operator->context, y, ay);
    double a = dot(x, ax, ld), b = dot(x, ay, ld), d = dot(y, ay, ld);
    double angle = 0.5 * atan2(2.0 * b, a - d), c = cos(angle), s = sin(angle);
    rotate(c, s, x, y, ld);
    rotate(c, s, ax, ay, ld);
    ritz->value[0] = dot(x, ax, ld), ritz->value[1] = dot(y, ay, ld);
    if (ritz->value[0] < ritz->value[1]) { /* equal but for rounding */
        double value = ritz->value[0];
        ritz->value[0] = ritz->value[1], ritz->value[1] = value;
        rotate(0.0, 1.0, x, y, ld);
        rotate(0.0, 1.0, ax, ay, ld);
    }
    axpy(-ritz->value[0], x, ax, ld);
    axpy(-ritz->value[1], y, ay, ld);
    ritz->residual[0] = sqrt(dot(ax, ax, ld)), ritz->residual[1] = sqrt(dot(ay, ay, ld));
    if (alone)
        ritz->residual[1] = ritz->value[0]; /* all that is known: an eigenvalue is that close to 0 */
    ritz->products += 2;
}

/* Start: nearly the vector of ones (near the first eigenvector of a non-negative matrix); from seed 1 on, noise. */
static double start(const operator_t *operator, uint64_t seed, double *x)
{
    uint64_t state = seed;
    memset(x, 0, (size_t)operator->ld * sizeof(double));
    for (ptrdiff_t k = 0; k < operator->n; k++)
        x[k] = seed == 0 ? 1.0 + 0.3 * uniform(&state) : uniform(&state);
    return sqrt(dot(x, x, operator->ld));
}

/* The two best Ritz pairs of an operator of n >= 2, by at most goal->most products and the two that check. 0: no memory. */
int krylov(const operator_t *operator, const goal_t *goal, uint64_t seed, ritz_t *ritz)
{
    ptrdiff_t n = operator->n, ld = operator->ld, look = FIRST_LOOK, most = goal->most < n ? goal->most : n, width = 0;
    ptrdiff_t seen = 0;
    double far = INFINITY, before = INFINITY;
    space_t space;
    double *image = malloc((size_t)(2 * ld) * sizeof(double)), top[3] = {0.0};
    if (image == NULL || !open_space(&space, most + 1, ld)) {
        free(image);
        return 0;
    }
    append(&space, ld, image, start(operator, seed, image));
    ritz->converged = 0;
    for (int more = 1; more && !ritz->converged;) { /* width: columns that were multiplied, the last one not among them */
        more = extend(operator, &space, image) && width + 1 < most;
        width++;
        if (more && width < look)
            continue;
        /* A look takes time as width, or as its square, and a column as n (n + 4 width): what wastes least of both. */
        int asked = 0;
        ritz->converged = more ? settled_by_sweeps(&space, width, goal, n, top, &asked, &far) : settled(&space, width, goal, n, top);
        double cost = 2000.0 * (double)(asked ? width * width / 10 : width);
        look = width + 1 + (ptrdiff_t)sqrt(cost / (double)(n * (n + 4 * width)));
        if (far < before && before < INFINITY) { /* errors fall the quicker the longer: most of the way as quick as so far */
            double steps = log(far) / log(before / far) * (double)(width - seen);
            look += (ptrdiff_t)(EAGER * fmin(fmax(steps, 0.0), (double)width / 4));
        }
        before = far, seen = width;
    }
    ritz->products = width;
    if (!ritz->converged) {
        width = settled_before(&space, width, goal, n, top);
        ritz->converged = width < ritz->products;
    }
    ritz_vector(&space, ld, width, fmax(top[0], 0.0), 0, ritz);
    ritz_vector(&space, ld, width, width > 1 ? fmax(top[1], 0.0) : 0.0, 1, ritz);
    settle(operator, image, ritz);
    free(space.basis);
    free(image);
    return 1;
}

typedef struct {
    const operator_t *inner;
    const double *vector;
    double value;
} deflated_t;

static void times_deflated(const void *context, const double *x, double *y)
{
    const deflated_t *it = context;
    it->inner->times(it->inner->context, x, y);
    axpy(-it->value * dot(it->vector, x, it->inner->ld), it->vector, y, it->inner->ld);
}

/* Look once more, in the complement of the first vector, where a value that one column sees only once is seen again; the
 * pair becomes the better for it, or stays. 0: no memory. */
int search_beside(const operator_t *operator, const goal_t *goal, ritz_t *ritz)
{
    ptrdiff_t ld = operator->ld;
    double *work = malloc((size_t)(4 * ld) * sizeof(double));
    if (work == NULL)
        return 0;
    deflated_t deflated = {operator, ritz->vector[0], ritz->value[0]};
    operator_t rest = {times_deflated, &deflated, operator->n, ld};
    ritz_t found = {.vector = {work, work + ld}};
    int done = krylov(&rest, goal, 1, &found);
    ritz->products = found.products;
    ritz->converged = done && found.converged;
    if (ritz->converged && found.value[0] > ritz->value[1]) {
        memcpy(ritz->vector[1], work, (size_t)ld * sizeof(double));
        settle(operator, work + 2 * ld, ritz);
    }
    free(work);
    return done;
}

/* Whether (shift) I + value_1 v_1 v_1^T - G has a Cholesky factor; its trace. `work`: WORK(ld), of which 4 ld
 * after the first ld * ld stay as they are. */
int certify(const double *gram, ptrdiff_t n, ptrdiff_t ld, const ritz_t *ritz, double shift, double *work, double *trace)
{
    const double *v = ritz->vector[0];
    *trace = 0.0;
    for (ptrdiff_t i = 0; i < ld; i++) {
        double factor = ritz->value[0] * v[i];
        for (ptrdiff_t k = 0; k <= i; k += 4)
            store(work + i * ld + k, factor * load(v + k) - load(gram + i * ld + k));
        work[i * ld + i] += i < n ? shift : 1.0;
        if (i < n)
            *trace += work[i * ld + i];
    }
    return cholesky(work, ld, work + ld * ld + 4 * ld);
}
