/* What binding.c and queue.c see to of the arguments that both take, for every size that kernel.h asks of a caller. */
#ifndef PAI_CHECKS_H
#define PAI_CHECKS_H

#include "buffers.h"
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define MOST_VERTICES ((Py_ssize_t)1 << 24) /* of a side: products of two fit everywhere */
#define MEMBERS(type) ((Py_ssize_t)(sizeof(type) / sizeof(double)))

static const wanted_t BITS = {"bits", "u", 8, 2, 0}, LIMITS = {"limits", "f", 8, 1, 0}, FOUND = {"found", "f", 8, 1, 1},
                      BEGIN = {"begin", "i", 8, 1, 0}, NEIGHBOUR = {"neighbour", "i", 4, 1, 0},
                      VALUE = {"value", "f", 8, 1, 0};

static inline int within(double value, double least, double most)
{
    return value >= least && value <= most; /* so NaN is not */
}

static inline int are_limits(const limits_t *limits)
{
    return within(limits->tolerance, 0.0, DBL_MAX) &&
           within(limits->most, 1.0, 0x1p53) && within(limits->direct_side, 0.0, 0x1p53) &&
           within(limits->proof_side, 0.0, 0x1p53) && within(limits->few_edges, 0.0, DBL_MAX) && within(limits->twice, 0.0, 1.0);
}

/* Of a matrix of bits: NULL, or what is wrong with its size. */
static inline const char *wrong_bits(const Py_buffer *bits)
{
    int fits = bits->shape[0] <= MOST_VERTICES && bits->shape[1] <= MOST_VERTICES / 64;
    return fits ? NULL : "more than 2^24 vertices on a side";
}

/* Of a range of vertices, of which there are `most`: NULL, or what is wrong. */
static inline const char *wrong_range(int64_t begin, int64_t end, int64_t most)
{
    if (begin < 0 || end > most)
        return "a range of vertices that are not there";
    return begin >= end ? "an empty range of vertices" : NULL;
}

/* Of edge lists: NULL, or what is wrong. `right`: vertices that a neighbour may be. */
static inline const char *wrong_lists(const Py_buffer *begin, const Py_buffer *neighbour, const Py_buffer *value, Py_ssize_t right)
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

/* Of a matrix of weights: NULL, or what is wrong. */
static inline const char *wrong_weights(const Py_buffer *weights)
{
    if (weights->itemsize != sizeof(float) && weights->itemsize != sizeof(double))
        return "weights: the compiled part takes float32 and float64";
    int fits = weights->shape[0] <= MOST_VERTICES && weights->shape[1] <= MOST_VERTICES;
    return fits ? NULL : "more than 2^24 vertices on a side";
}

/* queue.c */
PyObject *graph_of_bits(PyObject *self, PyObject *args);
PyObject *graph_of_lists(PyObject *self, PyObject *args);
PyObject *graph_of_weights(PyObject *self, PyObject *args);
PyObject *make_queue(PyObject *self, PyObject *args);
PyObject *work_on(PyObject *self, PyObject *args);

#endif
