/* Arguments from Python, checked before any of them is touched: buffers by kind, dimensions, alignment and overlap.
 *
 * What is written here holds for whatever a caller gives. Only that nobody changes a buffer from another thread during a
 * call is left to the caller. */
#ifndef PAI_BUFFERS_H
#define PAI_BUFFERS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define MOST_BUFFERS 7

typedef struct {
    const char *name, *type; /* as NumPy calls it */
    Py_ssize_t size;         /* bytes of an item; 0: any, for the function to check */
    int dimensions, writable;
} wanted_t;

typedef struct {
    Py_buffer of[MOST_BUFFERS];
    int count;
} buffers_t;

static inline void release(buffers_t *buffers)
{
    for (int k = 0; k < buffers->count; k++)
        PyBuffer_Release(buffers->of + k);
    buffers->count = 0;
}

/* 'i', 'u' or 'f' in this machine's byte order, as NumPy's kinds; 0: something else. */
static inline char kind_of(const char *format)
{
    if (format == NULL)
        return 'u'; /* plain bytes */
    if (*format == '@' || *format == '=' || *format == '<')
        format++;
    if (*format == '\0' || format[1] != '\0')
        return 0;
    return strchr("bhilqn", *format) ? 'i' : strchr("BHILQN", *format) ? 'u' : strchr("efd", *format) ? 'f' : 0;
}

static inline int is_wanted(const Py_buffer *view, const wanted_t *wanted)
{
    return view->ndim == wanted->dimensions && kind_of(view->format) == wanted->type[0] &&
           (wanted->size == 0 || view->itemsize == wanted->size) && view->itemsize > 0 &&
           PyBuffer_IsContiguous(view, 'C') && (uintptr_t)view->buf % (uintptr_t)view->itemsize == 0;
}

static inline const char *full_name(char kind)
{
    return kind == 'i' ? "int" : kind == 'u' ? "uint" : "float";
}

static inline int refuse(const wanted_t *wanted)
{
    char type[16] = "";
    PyOS_snprintf(type, sizeof type, wanted->size ? "%s%d" : "%s", full_name(wanted->type[0]), (int)wanted->size * 8);
    PyErr_Format(PyExc_ValueError, "%s: the compiled part takes aligned, contiguous %s of %d dimensions", wanted->name,
                 type, wanted->dimensions);
    return 0;
}

static inline int overlap(const Py_buffer *a, const Py_buffer *b)
{
    const char *x = a->buf, *y = b->buf;
    return a->len > 0 && b->len > 0 && x < y + b->len && y < x + a->len;
}

/* The first `count` of `all` arguments as buffers; 0 and an exception when one is not as wanted, or is to be written and
 * overlaps another. */
static inline int take_buffers(PyObject *args, int all, const wanted_t *wanted, int count, buffers_t *out)
{
    out->count = 0;
    if (PyTuple_Size(args) != all) {
        PyErr_Format(PyExc_TypeError, "the compiled part takes %d arguments here", all);
        return 0;
    }
    for (int k = 0; k < count; k++) {
        int flags = PyBUF_STRIDES | PyBUF_FORMAT | (wanted[k].writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(PyTuple_GetItem(args, k), out->of + k, flags) != 0) {
            release(out);
            return 0;
        }
        out->count++;
        if (!is_wanted(out->of + k, wanted + k)) {
            release(out);
            return refuse(wanted + k);
        }
    }
    for (int k = 0; k < count; k++)
        for (int other = 0; other < count; other++)
            if (wanted[k].writable && other != k && overlap(out->of + k, out->of + other)) {
                release(out);
                PyErr_Format(PyExc_ValueError, "%s overlaps %s", wanted[k].name, wanted[other].name);
                return 0;
            }
    return 1;
}

/* Argument number `at` as an integer between two others. */
static inline int take_integer(PyObject *args, int at, const char *name, Py_ssize_t least, Py_ssize_t most, Py_ssize_t *out)
{
    *out = PyLong_AsSsize_t(PyTuple_GetItem(args, at));
    if (*out == -1 && PyErr_Occurred())
        return 0;
    if (*out >= least && *out <= most)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s is %zd, and must lie between %zd and %zd", name, *out, least, most);
    return 0;
}

/* Free what was taken, and say why. */
static inline PyObject *refused(buffers_t *buffers, const char *why)
{
    release(buffers);
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

#endif
