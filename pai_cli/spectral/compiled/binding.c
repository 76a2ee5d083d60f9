/* What Python sees: functions over buffers, whose sizes the caller (calls.py) answers for; the interpreter is let go
 * while they work. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "kernel.h"

#include <stdlib.h>

static PyObject *pack(PyObject *self, PyObject *args)
{
    Py_buffer mask, out;
    Py_ssize_t rows, columns;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nnw*", &mask, &rows, &columns, &out))
        return NULL;
    uint64_t *scratch = malloc((size_t)(64 * ((columns + 63) / 64 + 1)) * sizeof(uint64_t));
    if (scratch != NULL) {
        Py_BEGIN_ALLOW_THREADS
        pack_columns(mask.buf, rows, columns, out.buf, scratch);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&mask);
    PyBuffer_Release(&out);
    if (scratch == NULL)
        return PyErr_NoMemory();
    free(scratch);
    Py_RETURN_NONE;
}

static PyObject *components(PyObject *self, PyObject *args)
{
    Py_buffer bits;
    Py_ssize_t left, words;
    ptrdiff_t count = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nn", &bits, &left, &words))
        return NULL;
    uint64_t *reached = malloc((size_t)(words * 33 + 1) * sizeof(uint64_t));
    if (reached != NULL) {
        Py_BEGIN_ALLOW_THREADS
        count = components_of_bits(bits.buf, left, words, reached, (int32_t *)(reached + words));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&bits);
    if (reached == NULL)
        return PyErr_NoMemory();
    free(reached);
    return PyLong_FromSsize_t(count);
}

/* neighbours(bits, rows, words, out): the numbers of the bits set, row by row. */
static PyObject *neighbours(PyObject *self, PyObject *args)
{
    Py_buffer bits, out;
    Py_ssize_t rows, words;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nnw*", &bits, &rows, &words, &out))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    list_bits(bits.buf, rows, words, out.buf, NULL);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&bits);
    PyBuffer_Release(&out);
    Py_RETURN_NONE;
}

/* solve_bits(packed, words, ranges, wish, found): ranges of the packed rows, a row of `found` each. */
static PyObject *bits(PyObject *self, PyObject *args)
{
    Py_buffer packed, ranges, wish, found;
    Py_ssize_t words;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*ny*y*w*", &packed, &words, &ranges, &wish, &found))
        return NULL;
    const uint64_t *rows = packed.buf;
    const int64_t *range = ranges.buf;
    found_t *out = found.buf;
    ptrdiff_t count = found.len / (Py_ssize_t)sizeof(found_t);
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t k = 0; k < count; k++)
        solve_bits(rows + range[2 * k] * words, words, range[2 * k + 1] - range[2 * k], wish.buf, out + k);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&packed);
    PyBuffer_Release(&ranges);
    PyBuffer_Release(&wish);
    PyBuffer_Release(&found);
    Py_RETURN_NONE;
}

/* solve_edges(begin, neighbour, value, right, ranges, touched, wish, found): ranges of left vertices, and how many right
 * vertices each touches. */
static PyObject *edges(PyObject *self, PyObject *args)
{
    Py_buffer begin, neighbour, value, ranges, touched, wish, found;
    Py_ssize_t right;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*ny*y*y*w*", &begin, &neighbour, &value, &right, &ranges, &touched, &wish,
                          &found))
        return NULL;
    const int64_t *range = ranges.buf;
    found_t *out = found.buf;
    ptrdiff_t count = found.len / (Py_ssize_t)sizeof(found_t);
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t k = 0; k < count; k++) {
        edges_t part = {range[2 * k + 1] - range[2 * k], right, (const int64_t *)begin.buf + range[2 * k], neighbour.buf,
                        value.buf};
        solve_edges(&part, (ptrdiff_t)((const int64_t *)touched.buf)[k], wish.buf, out + k);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&begin);
    PyBuffer_Release(&neighbour);
    PyBuffer_Release(&value);
    PyBuffer_Release(&ranges);
    PyBuffer_Release(&touched);
    PyBuffer_Release(&wish);
    PyBuffer_Release(&found);
    Py_RETURN_NONE;
}

/* solve_gram(gram, n, ld, wish, found): one Gram matrix of ld rows, padded with zeros. */
static PyObject *gram(PyObject *self, PyObject *args)
{
    Py_buffer matrix, wish, found;
    Py_ssize_t n, ld;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nny*w*", &matrix, &n, &ld, &wish, &found))
        return NULL;
    double *work = malloc((size_t)(ld * ld + 4 * ld) * sizeof(double));
    if (work != NULL) {
        Py_BEGIN_ALLOW_THREADS
        solve_gram(matrix.buf, n, ld, wish.buf, work, found.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&matrix);
    PyBuffer_Release(&wish);
    PyBuffer_Release(&found);
    if (work == NULL)
        return PyErr_NoMemory();
    free(work);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"pack", pack, METH_VARARGS, NULL},
    {"components", components, METH_VARARGS, NULL},
    {"neighbours", neighbours, METH_VARARGS, NULL},
    {"solve_bits", bits, METH_VARARGS, NULL},
    {"solve_edges", edges, METH_VARARGS, NULL},
    {"solve_gram", gram, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&definition);
}
