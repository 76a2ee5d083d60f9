/* What Python sees: functions over buffers. All arguments are checked here, for every size that kernel.h asks of a caller;
 * then the interpreter is let go. */
#include "buffers.h"
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define MOST_VERTICES ((Py_ssize_t)1 << 24) /* of a side: products of two fit everywhere */
#define MEMBERS(type) ((Py_ssize_t)(sizeof(type) / sizeof(double)))

static const wanted_t BITS = {"bits", "u", 8, 2, 0}, RANGES = {"ranges", "i", 8, 2, 0}, LIMITS = {"limits", "f", 8, 1, 0},
                      FOUND = {"found", "f", 8, 1, 1}, BEGIN = {"begin", "i", 8, 1, 0}, NEIGHBOUR = {"neighbour", "i", 4, 1, 0};

static int within(double value, double least, double most)
{
    return value >= least && value <= most; /* so NaN is not */
}

static int are_limits(const Py_buffer *given)
{
    const limits_t *limits = given->buf;
    return given->shape[0] == MEMBERS(limits_t) && within(limits->tolerance, 0.0, DBL_MAX) &&
           within(limits->most, 1.0, 0x1p53) && within(limits->direct_side, 0.0, 0x1p53) &&
           within(limits->proof_side, 0.0, 0x1p53) && within(limits->few_edges, 0.0, DBL_MAX) && within(limits->twice, 0.0, 1.0);
}

/* Of a matrix of bits: NULL, or what is wrong with its size. */
static const char *wrong_bits(const Py_buffer *bits)
{
    int fits = bits->shape[0] <= MOST_VERTICES && bits->shape[1] <= MOST_VERTICES / 64;
    return fits ? NULL : "more than 2^24 vertices on a side";
}

/* Of what every solver of several ranges is given: NULL, or what is wrong. `most`: vertices that there are. */
static const char *wrong_ranges(const Py_buffer *ranges, Py_ssize_t most, const Py_buffer *limits, const Py_buffer *found)
{
    const int64_t *range = ranges->buf;
    if (ranges->shape[1] != 2)
        return "a range of vertices that are not there";
    for (Py_ssize_t k = 0; k < ranges->shape[0]; k++, range += 2) {
        if (range[0] < 0 || range[1] > most)
            return "a range of vertices that are not there";
        if (range[0] >= range[1])
            return "an empty range of vertices";
    }
    if (!are_limits(limits))
        return "limits: not what a solver can be asked for";
    return found->shape[0] != ranges->shape[0] * MEMBERS(found_t) ? "found: as many rows as ranges are needed" : NULL;
}

/* pack(mask, out): columns of a mask of bytes as rows of bits. */
static PyObject *pack(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"mask", "u", 1, 2, 0}, {"out", "u", 8, 2, 1}};
    buffers_t given;
    (void)self;
    if (!take_buffers(args, 2, wanted, 2, &given))
        return NULL;
    const Py_buffer *mask = given.of, *out = given.of + 1;
    Py_ssize_t rows = mask->shape[0], columns = mask->shape[1];
    if (rows > MOST_VERTICES || columns > MOST_VERTICES)
        return refused(&given, "more than 2^24 vertices on a side");
    if (out->shape[0] != (columns + 63) / 64 * 64 || out->shape[1] != (rows + 63) / 64)
        return refused(&given, "out: not of the size of the mask's bits");
    uint64_t *scratch = malloc((size_t)(64 * ((columns + 63) / 64 + 1)) * sizeof(uint64_t));
    if (scratch != NULL) {
        Py_BEGIN_ALLOW_THREADS
        pack_columns(mask->buf, rows, columns, out->buf, scratch);
        Py_END_ALLOW_THREADS
    }
    release(&given);
    if (scratch == NULL)
        return PyErr_NoMemory();
    free(scratch);
    Py_RETURN_NONE;
}

/* components(bits): how many, of one left vertex or more. */
static PyObject *components(PyObject *self, PyObject *args)
{
    buffers_t given;
    ptrdiff_t count = 0;
    (void)self;
    if (!take_buffers(args, 1, &BITS, 1, &given))
        return NULL;
    const Py_buffer *bits = given.of;
    const char *wrong = bits->shape[0] < 1 ? "bits: no rows" : wrong_bits(bits);
    if (wrong != NULL)
        return refused(&given, wrong);
    ptrdiff_t words = bits->shape[1];
    uint64_t *reached = malloc((size_t)(words * 33 + 1) * sizeof(uint64_t));
    if (reached != NULL) {
        Py_BEGIN_ALLOW_THREADS
        count = components_of_bits(bits->buf, bits->shape[0], words, reached, (int32_t *)(reached + words));
        Py_END_ALLOW_THREADS
    }
    release(&given);
    if (reached == NULL)
        return PyErr_NoMemory();
    free(reached);
    return PyLong_FromSsize_t(count);
}

/* neighbours(bits, out): the numbers of the bits set, row by row. */
static PyObject *neighbours(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {BITS, {"out", "i", 4, 1, 1}};
    buffers_t given;
    int64_t count = 0;
    (void)self;
    if (!take_buffers(args, 2, wanted, 2, &given))
        return NULL;
    const Py_buffer *bits = given.of, *out = given.of + 1;
    const char *wrong = wrong_bits(bits);
    if (wrong != NULL)
        return refused(&given, wrong);
    for (ptrdiff_t at = 0; at < bits->len / 8; at++)
        count += __builtin_popcountll(((const uint64_t *)bits->buf)[at]);
    if (count != out->shape[0])
        return refused(&given, "out: not as long as there are edges");
    Py_BEGIN_ALLOW_THREADS
    list_bits(bits->buf, bits->shape[0], bits->shape[1], out->buf, NULL);
    Py_END_ALLOW_THREADS
    release(&given);
    Py_RETURN_NONE;
}

/* solve_bits(bits, ranges, limits, found): ranges of the rows, a row of `found` each. */
static PyObject *bits(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {BITS, RANGES, LIMITS, FOUND};
    buffers_t given;
    (void)self;
    if (!take_buffers(args, 4, wanted, 4, &given))
        return NULL;
    const Py_buffer *packed = given.of;
    const char *wrong = wrong_bits(packed);
    if (wrong == NULL)
        wrong = wrong_ranges(given.of + 1, packed->shape[0], given.of + 2, given.of + 3);
    if (wrong != NULL)
        return refused(&given, wrong);
    ptrdiff_t words = packed->shape[1], count = given.of[1].shape[0];
    const uint64_t *rows = packed->buf;
    const int64_t *range = given.of[1].buf;
    const limits_t *limits = given.of[2].buf;
    found_t *out = given.of[3].buf;
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t k = 0; k < count; k++)
        solve_bits(rows + range[2 * k] * words, words, range[2 * k + 1] - range[2 * k], limits, out + k);
    Py_END_ALLOW_THREADS
    release(&given);
    Py_RETURN_NONE;
}

/* Of edge lists: NULL, or what is wrong. `right`: vertices that a neighbour may be. */
static const char *wrong_lists(const Py_buffer *begin, const Py_buffer *neighbour, const Py_buffer *value, Py_ssize_t right)
{
    const int64_t *at = begin->buf;
    const int32_t *to = neighbour->buf;
    Py_ssize_t left = begin->shape[0] - 1, edges = neighbour->shape[0];
    if (left < 0 || left > MOST_VERTICES || at[0] != 0)
        return "edge lists that do not begin at 0 and go on";
    if (edges != value->shape[0] || edges != at[left])
        return "edge lists of different lengths";
    for (Py_ssize_t v = 0; v < left; v++)
        if (at[v + 1] < at[v])
            return "edge lists that do not begin at 0 and go on";
    for (Py_ssize_t v = 0; v < left; v++) /* all lists lie within the edges: they begin at 0, go on and end there */
        for (int64_t k = at[v]; k < at[v + 1]; k++) {
            if (to[k] < 0 || to[k] >= right)
                return "a right vertex that is not there";
            if (k > at[v] && to[k] <= to[k - 1])
                return "neighbours that do not increase within a list";
        }
    return NULL;
}

/* solve_edges(begin, neighbour, value, ranges, touched, limits, found, right): ranges of left vertices, and how many right
 * vertices each touches. */
static PyObject *edges(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {BEGIN, NEIGHBOUR, {"value", "f", 8, 1, 0}, RANGES,
                               {"touched", "i", 8, 1, 0}, LIMITS, FOUND};
    buffers_t given;
    Py_ssize_t right;
    (void)self;
    if (!take_buffers(args, 8, wanted, 7, &given))
        return NULL;
    if (!take_integer(args, 7, "right", 0, MOST_VERTICES, &right)) {
        release(&given);
        return NULL;
    }
    const Py_buffer *at = given.of;
    const char *wrong = wrong_lists(at, at + 1, at + 2, right);
    if (wrong == NULL)
        wrong = wrong_ranges(at + 3, at[0].shape[0] - 1, at + 5, at + 6);
    if (wrong == NULL && at[4].shape[0] != at[3].shape[0])
        wrong = "as many counts of right vertices as ranges are needed";
    if (wrong != NULL)
        return refused(&given, wrong);
    const int64_t *begin = at[0].buf, *range = at[3].buf, *touched = at[4].buf;
    const limits_t *limits = at[5].buf;
    found_t *out = at[6].buf;
    ptrdiff_t count = at[3].shape[0];
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t k = 0; k < count; k++) {
        edges_t part = {range[2 * k + 1] - range[2 * k], right, begin + range[2 * k], at[1].buf, at[2].buf};
        solve_edges(&part, (ptrdiff_t)touched[k], limits, out + k);
    }
    Py_END_ALLOW_THREADS
    release(&given);
    Py_RETURN_NONE;
}

/* Of a matrix of weights: NULL, or what is wrong. */
static const char *wrong_weights(const Py_buffer *weights)
{
    if (weights->itemsize != sizeof(float) && weights->itemsize != sizeof(double))
        return "weights: the compiled part takes float32 and float64";
    int fits = weights->shape[0] <= MOST_VERTICES && weights->shape[1] <= MOST_VERTICES;
    return fits ? NULL : "more than 2^24 vertices on a side";
}

/* Which of `columns` each of `width` is, -1 for none, into `place`. NULL, or what is wrong. */
static const char *wrong_columns(const Py_buffer *columns, Py_ssize_t width, int64_t *place)
{
    const int64_t *column = columns->buf;
    for (Py_ssize_t c = 0; c < width; c++)
        place[c] = -1;
    for (Py_ssize_t v = 0; v < columns->shape[0]; v++) {
        if (column[v] < 0 || column[v] >= width || place[column[v]] >= 0)
            return "a column of weights that is not there, or twice";
        place[column[v]] = v;
    }
    return NULL;
}

/* weights(begin, neighbour, columns, weights, out): |W| of the edges; a vertex with a list is a column of the weights. */
static PyObject *weights(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {BEGIN, NEIGHBOUR, {"columns", "i", 8, 1, 0}, {"weights", "f", 0, 2, 0}, {"out", "f", 8, 1, 1}};
    buffers_t given;
    (void)self;
    if (!take_buffers(args, 5, wanted, 5, &given))
        return NULL;
    const Py_buffer *at = given.of;
    const char *wrong = wrong_weights(at + 3);
    if (wrong == NULL)
        wrong = wrong_lists(at, at + 1, at + 4, at[3].shape[0]);
    if (wrong == NULL && at[2].shape[0] != at[0].shape[0] - 1)
        wrong = "columns: as many as lists are needed";
    if (wrong != NULL)
        return refused(&given, wrong);
    ptrdiff_t width = at[3].shape[1];
    int64_t *place = malloc((size_t)(width + 1) * sizeof(int64_t));
    if (place != NULL) {
        wrong = wrong_columns(at + 2, width, place);
        edges_t edges = {at[0].shape[0] - 1, at[3].shape[0], at[0].buf, at[1].buf, NULL};
        Py_BEGIN_ALLOW_THREADS
        if (wrong == NULL)
            weights_of_edges(&edges, place, at[3].buf, width, at[3].itemsize, at[4].buf);
        Py_END_ALLOW_THREADS
    }
    int done = place != NULL;
    free(place);
    if (wrong != NULL)
        return refused(&given, wrong);
    release(&given);
    if (!done)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* solve_weights(weights, limits, found, largest): all of a matrix of |W|, one row of `found`. */
static PyObject *whole(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"weights", "f", 0, 2, 0}, LIMITS, FOUND};
    buffers_t given;
    (void)self;
    if (!take_buffers(args, 4, wanted, 3, &given))
        return NULL;
    const Py_buffer *at = given.of;
    double largest = PyFloat_AsDouble(PyTuple_GetItem(args, 3));
    if (PyErr_Occurred()) {
        release(&given);
        return NULL;
    }
    const char *wrong = wrong_weights(at);
    if (wrong == NULL && (at->shape[0] < 1 || at->shape[1] < 1))
        wrong = "weights: no rows or no columns";
    if (wrong == NULL && !within(largest, DBL_TRUE_MIN, DBL_MAX))
        wrong = "largest: not above 0 and finite";
    if (wrong == NULL && (!are_limits(at + 1) || at[2].shape[0] != MEMBERS(found_t)))
        wrong = "limits or found: not what a solver reads and writes";
    if (wrong != NULL)
        return refused(&given, wrong);
    Py_BEGIN_ALLOW_THREADS
    solve_weights(at[0].buf, at[0].itemsize, at[0].shape[0], at[0].shape[1], largest, at[1].buf, at[2].buf);
    Py_END_ALLOW_THREADS
    release(&given);
    Py_RETURN_NONE;
}

/* solve_gram(gram, limits, found, n): one Gram matrix of n rows, padded with zeros to a multiple of 4. */
static PyObject *gram(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"gram", "f", 8, 2, 0}, LIMITS, FOUND};
    buffers_t given;
    Py_ssize_t n;
    (void)self;
    if (!take_buffers(args, 4, wanted, 3, &given))
        return NULL;
    if (!take_integer(args, 3, "n", 1, MOST_VERTICES, &n)) {
        release(&given);
        return NULL;
    }
    const Py_buffer *matrix = given.of;
    Py_ssize_t ld = fours(n);
    if (matrix->shape[0] != ld || matrix->shape[1] != ld)
        return refused(&given, "gram: not n rows and columns, padded to a multiple of 4");
    if (!are_limits(given.of + 1) || given.of[2].shape[0] != MEMBERS(found_t))
        return refused(&given, "limits or found: not what a solver reads and writes");
    double *work = malloc((size_t)(ld * ld + 4 * ld) * sizeof(double));
    if (work != NULL) {
        Py_BEGIN_ALLOW_THREADS
        solve_gram(matrix->buf, n, ld, given.of[1].buf, work, given.of[2].buf);
        Py_END_ALLOW_THREADS
    }
    release(&given);
    if (work == NULL)
        return PyErr_NoMemory();
    free(work);
    Py_RETURN_NONE;
}

static int may_eliminate(const Py_buffer *given)
{
    const elimination_t *limits = given->buf;
    return given->shape[0] == MEMBERS(elimination_t) && within(limits->shift, DBL_MIN, DBL_MAX) &&
           within(limits->most_below, 0.0, 0x1p53) && within(limits->most_rest, 0.0, 0x1p15) &&
           within(limits->most_entries, 0.0, 0x1p53) && within(limits->most_work, 0.0, 0x1p63);
}

/* eliminate(begin, neighbour, value, limits, out, right): a bytearray, the rest as doubles. */
static PyObject *eliminate(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"begin", "i", 8, 1, 0}, {"neighbour", "i", 4, 1, 0}, {"value", "f", 8, 1, 0}, LIMITS,
                               {"out", "f", 8, 1, 1}};
    buffers_t given;
    Py_ssize_t right;
    double *rest;
    (void)self;
    if (!take_buffers(args, 6, wanted, 5, &given))
        return NULL;
    if (!take_integer(args, 5, "right", 0, MOST_VERTICES, &right)) {
        release(&given);
        return NULL;
    }
    const Py_buffer *at = given.of;
    const char *wrong = wrong_lists(at, at + 1, at + 2, right);
    if (wrong == NULL && (!may_eliminate(at + 3) || at[4].shape[0] != MEMBERS(eliminated_t)))
        wrong = "limits or out: not what an elimination reads and writes";
    if (wrong != NULL)
        return refused(&given, wrong);
    edges_t near = {at[0].shape[0] - 1, right, at[0].buf, at[1].buf, at[2].buf};
    eliminated_t *out = at[4].buf;
    Py_BEGIN_ALLOW_THREADS
    rest = eliminate_edges(&near, at[3].buf, out);
    Py_END_ALLOW_THREADS
    double status = out->status, count = out->rest;
    release(&given);
    if (status == NO_ROOM) {
        free(rest);
        return PyErr_NoMemory();
    }
    Py_ssize_t size = rest == NULL ? 0 : (Py_ssize_t)(count * count) * (Py_ssize_t)sizeof(double);
    PyObject *bytes = PyByteArray_FromStringAndSize((const char *)rest, size);
    free(rest);
    return bytes;
}

static PyMethodDef methods[] = {
    {"pack", pack, METH_VARARGS, NULL},
    {"components", components, METH_VARARGS, NULL},
    {"neighbours", neighbours, METH_VARARGS, NULL},
    {"solve_bits", bits, METH_VARARGS, NULL},
    {"solve_edges", edges, METH_VARARGS, NULL},
    {"weights", weights, METH_VARARGS, NULL},
    {"solve_weights", whole, METH_VARARGS, NULL},
    {"solve_gram", gram, METH_VARARGS, NULL},
    {"eliminate", eliminate, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&definition);
}
