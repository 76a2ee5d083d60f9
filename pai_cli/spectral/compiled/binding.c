/* What Python sees: functions over buffers. All arguments are checked here, for every size that kernel.h asks of a caller;
 * then the interpreter is let go. */
#include "checks.h"

/* pack(mask, out, degrees): columns of a mask of bytes as rows of bits, and how many bytes of each row are not 0. */
static PyObject *pack(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"mask", "u", 1, 2, 0}, {"out", "u", 8, 2, 1}, {"degrees", "i", 8, 1, 1}};
    buffers_t given;
    (void)self;
    if (!take_buffers(args, 3, wanted, 3, &given))
        return NULL;
    const Py_buffer *mask = given.of, *out = given.of + 1;
    Py_ssize_t rows = mask->shape[0], columns = mask->shape[1];
    if (rows > MOST_VERTICES || columns > MOST_VERTICES)
        return refused(&given, "more than 2^24 vertices on a side");
    if (out->shape[0] != (columns + 63) / 64 * 64 || out->shape[1] != (rows + 63) / 64)
        return refused(&given, "out: not of the size of the mask's bits");
    if (given.of[2].shape[0] != rows)
        return refused(&given, "degrees: as many as there are rows are needed");
    uint64_t *scratch = malloc((size_t)(64 * ((columns + 63) / 64 + 1)) * sizeof(uint64_t));
    if (scratch != NULL) {
        Py_BEGIN_ALLOW_THREADS
        pack_columns(mask->buf, rows, columns, out->buf, given.of[2].buf, scratch);
        Py_END_ALLOW_THREADS
    }
    release(&given);
    if (scratch == NULL)
        return PyErr_NoMemory();
    free(scratch);
    Py_RETURN_NONE;
}

/* arrange(bits, out, row, degree): rows with a bit, sorted by how many; how many rows these are. */
static PyObject *sorted(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {BITS, {"out", "u", 8, 2, 1}, {"row", "i", 8, 1, 1}, {"degree", "i", 8, 1, 1}};
    buffers_t given;
    ptrdiff_t count = 0;
    (void)self;
    if (!take_buffers(args, 4, wanted, 4, &given))
        return NULL;
    const Py_buffer *at = given.of;
    const char *wrong = wrong_bits(at);
    ptrdiff_t rows = at[0].shape[0], words = at[0].shape[1];
    if (wrong == NULL && (at[1].shape[0] != rows || at[1].shape[1] != words || at[2].shape[0] != rows || at[3].shape[0] != rows))
        wrong = "out, row or degree: as many as there are rows of bits are needed";
    if (wrong != NULL)
        return refused(&given, wrong);
    int64_t *scratch = malloc((size_t)(rows + 64 * words + 2) * sizeof(int64_t));
    if (scratch != NULL) {
        Py_BEGIN_ALLOW_THREADS
        count = arrange(at[0].buf, rows, words, at[1].buf, at[2].buf, at[3].buf, scratch);
        Py_END_ALLOW_THREADS
    }
    release(&given);
    if (scratch == NULL)
        return PyErr_NoMemory();
    free(scratch);
    return PyLong_FromSsize_t(count);
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
    if (given.of[1].shape[0] != MEMBERS(limits_t) || !are_limits(given.of[1].buf) || given.of[2].shape[0] != MEMBERS(found_t))
        return refused(&given, "limits or found: not what a solver reads and writes");
    double *work = malloc((size_t)WORK(ld) * sizeof(double));
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
    const wanted_t wanted[] = {{"begin", "i", 8, 1, 0}, {"neighbour", "i", 4, 1, 0}, VALUE, LIMITS,
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
    {"arrange", sorted, METH_VARARGS, NULL},
    {"components", components, METH_VARARGS, NULL},
    {"neighbours", neighbours, METH_VARARGS, NULL},
    {"weights", weights, METH_VARARGS, NULL},
    {"graph_of_bits", graph_of_bits, METH_VARARGS, NULL},
    {"graph_of_lists", graph_of_lists, METH_VARARGS, NULL},
    {"graph_of_weights", graph_of_weights, METH_VARARGS, NULL},
    {"queue", make_queue, METH_VARARGS, NULL},
    {"work", work_on, METH_VARARGS, NULL},
    {"solve_gram", gram, METH_VARARGS, NULL},
    {"eliminate", eliminate, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&definition);
}
