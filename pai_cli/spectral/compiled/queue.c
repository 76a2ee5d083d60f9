/* Many problems of several graphs as one queue: every thread that works on it takes the next problem that nobody has.
 *
 * A graph is checked once and then holds its buffers, which nobody may write to as long as it lives. The table of problems
 * is a copy. */
#include "checks.h"

#include <time.h>

#define GRAPH "pai graph"
#define QUEUE "pai queue"

#define FOUND_AT 4 /* of the arguments of a queue */
#define NEXT_AT 5

enum kind { OF_BITS, OF_LISTS, OF_WEIGHTS };

typedef struct {
    enum kind kind;
    buffers_t given;
    ptrdiff_t vertices; /* on the left; a matrix of weights is solved as a whole, as one */
    ptrdiff_t right;
    double largest;
} graph_t;

typedef struct {
    int64_t graph, begin, end, touched;
} problem_t;

typedef struct {
    PyObject *graphs; /* keeps those below alive */
    graph_t **graph;
    problem_t *problem;
    limits_t *limits; /* of each graph */
    ptrdiff_t count;
    buffers_t given; /* of its making */
} queue_t;

static void free_graph(graph_t *graph)
{
    release(&graph->given);
    free(graph);
}

static void end_graph(PyObject *capsule)
{
    free_graph(PyCapsule_GetPointer(capsule, GRAPH));
}

/* A graph that holds its buffers, which are the first `count` of `all` arguments; NULL and an exception. It stays where it is:
 * a buffer may point into itself. */
static graph_t *take_graph(enum kind kind, PyObject *args, int all, const wanted_t *wanted, int count)
{
    graph_t *graph = calloc(1, sizeof *graph);
    if (graph == NULL)
        PyErr_NoMemory();
    else if (!take_buffers(args, all, wanted, count, &graph->given)) {
        free(graph);
        graph = NULL;
    } else
        graph->kind = kind;
    return graph;
}

/* The graph as an object; NULL and an exception where something is `wrong`. */
static PyObject *held(graph_t *graph, const char *wrong)
{
    PyObject *capsule = NULL;
    if (wrong != NULL)
        PyErr_SetString(PyExc_ValueError, wrong);
    else
        capsule = PyCapsule_New(graph, GRAPH, end_graph);
    if (capsule == NULL)
        free_graph(graph);
    return capsule;
}

/* graph_of_bits(bits) */
PyObject *graph_of_bits(PyObject *self, PyObject *args)
{
    (void)self;
    graph_t *graph = take_graph(OF_BITS, args, 1, &BITS, 1);
    if (graph == NULL)
        return NULL;
    graph->vertices = graph->given.of[0].shape[0];
    return held(graph, wrong_bits(graph->given.of));
}

/* graph_of_lists(begin, neighbour, value, right) */
PyObject *graph_of_lists(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {BEGIN, NEIGHBOUR, VALUE};
    const char *wrong;
    (void)self;
    graph_t *graph = take_graph(OF_LISTS, args, 4, wanted, 3);
    if (graph == NULL)
        return NULL;
    const Py_buffer *at = graph->given.of;
    if (!take_integer(args, 3, "right", 0, MOST_VERTICES, &graph->right)) {
        free_graph(graph);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    wrong = wrong_lists(at, at + 1, at + 2, graph->right);
    Py_END_ALLOW_THREADS
    graph->vertices = at[0].shape[0] - 1;
    return held(graph, wrong);
}

/* graph_of_weights(weights, largest): all of a matrix of |W|, over the largest of them. */
PyObject *graph_of_weights(PyObject *self, PyObject *args)
{
    const wanted_t wanted = {"weights", "f", 0, 2, 0};
    (void)self;
    graph_t *graph = take_graph(OF_WEIGHTS, args, 2, &wanted, 1);
    if (graph == NULL)
        return NULL;
    const Py_buffer *at = graph->given.of;
    graph->largest = PyFloat_AsDouble(PyTuple_GetItem(args, 1));
    if (PyErr_Occurred()) {
        free_graph(graph);
        return NULL;
    }
    const char *wrong = wrong_weights(at);
    if (wrong == NULL && (at->shape[0] < 1 || at->shape[1] < 1))
        wrong = "weights: no rows or no columns";
    if (wrong == NULL && !within(graph->largest, DBL_TRUE_MIN, DBL_MAX))
        wrong = "largest: not above 0 and finite";
    graph->vertices = 1; /* a whole, which has one part */
    return held(graph, wrong);
}

static void free_queue(queue_t *queue)
{
    release(&queue->given);
    Py_XDECREF(queue->graphs);
    free(queue->graph);
    free(queue->problem);
    free(queue->limits);
    free(queue);
}

static void end_queue(PyObject *capsule)
{
    free_queue(PyCapsule_GetPointer(capsule, QUEUE));
}

static const char *wrong_problems(const queue_t *queue, ptrdiff_t graphs)
{
    for (ptrdiff_t k = 0; k < queue->count; k++) {
        const problem_t *problem = queue->problem + k;
        if (problem->graph < 0 || problem->graph >= graphs)
            return "a problem of a graph that is not there";
        const char *wrong = wrong_range(problem->begin, problem->end, queue->graph[problem->graph]->vertices);
        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

static const char *wrong_sizes(const Py_buffer *at, ptrdiff_t graphs)
{
    if (at[0].shape[0] != graphs || at[0].shape[1] != MEMBERS(limits_t))
        return "limits: a row a graph is needed";
    if (at[2].shape[1] != 2)
        return "a range of vertices that are not there";
    if (at[1].shape[0] != at[2].shape[0])
        return "as many numbers of graphs as ranges are needed";
    if (at[3].shape[0] != at[2].shape[0])
        return "as many counts of right vertices as ranges are needed";
    if (at[FOUND_AT].shape[0] != at[2].shape[0] * MEMBERS(found_t))
        return "found: as many rows as ranges are needed";
    return at[NEXT_AT].shape[0] != 1 ? "next: one number is needed" : NULL;
}

/* The graphs of a tuple, none of which lies where the answers will; NULL, or what is wrong, which may be an exception. */
static const char *take_graphs(queue_t *queue, PyObject *graphs, ptrdiff_t count)
{
    const Py_buffer *found = queue->given.of + FOUND_AT, *next = queue->given.of + NEXT_AT;
    for (ptrdiff_t k = 0; k < count; k++) {
        graph_t *graph = queue->graph[k] = PyCapsule_GetPointer(PyTuple_GetItem(graphs, k), GRAPH);
        if (graph == NULL)
            return "graphs: something else among them";
        for (int b = 0; b < graph->given.count; b++)
            if (overlap(graph->given.of + b, found) || overlap(graph->given.of + b, next))
                return "found or next overlaps a graph";
        if (!are_limits(queue->limits + k))
            return "limits: not what a solver can be asked for";
    }
    return NULL;
}

static const char *fill(queue_t *queue, PyObject *graphs)
{
    const Py_buffer *at = queue->given.of;
    ptrdiff_t count = PyTuple_Check(graphs) ? PyTuple_Size(graphs) : -1;
    const char *wrong = count < 0 ? "graphs: a tuple of them is needed" : wrong_sizes(at, count);
    if (wrong != NULL)
        return wrong;
    Py_INCREF(graphs);
    queue->graphs = graphs, queue->count = at[2].shape[0];
    queue->graph = malloc((size_t)(count + 1) * sizeof(graph_t *));
    queue->problem = malloc((size_t)(queue->count + 1) * sizeof(problem_t));
    queue->limits = malloc((size_t)(count + 1) * sizeof(limits_t));
    if (queue->graph == NULL || queue->limits == NULL || queue->problem == NULL) {
        PyErr_NoMemory();
        return "no memory";
    }
    memcpy(queue->limits, at[0].buf, (size_t)at[0].len);
    const int64_t *graph = at[1].buf, *range = at[2].buf, *touched = at[3].buf;
    for (ptrdiff_t k = 0; k < queue->count; k++)
        queue->problem[k] = (problem_t){graph[k], range[2 * k], range[2 * k + 1], touched[k]};
    wrong = take_graphs(queue, graphs, count);
    return wrong != NULL ? wrong : wrong_problems(queue, count);
}

/* queue(limits, graph, ranges, touched, found, next, graphs): limits, a row a graph; of each problem, in the order in which
 * they are begun, the number of its graph, its range, how many right vertices that touches, and a row of `found`; next: one
 * number, 0, which counts those that are begun. Who sets it to how many they are ends the work. */
PyObject *make_queue(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"limits", "f", 8, 2, 0}, {"graph", "i", 8, 1, 0}, {"ranges", "i", 8, 2, 0},
                               {"touched", "i", 8, 1, 0}, FOUND, {"next", "i", 8, 1, 1}};
    (void)self;
    queue_t *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return PyErr_NoMemory();
    if (!take_buffers(args, 7, wanted, 6, &queue->given)) {
        free(queue);
        return NULL;
    }
    const char *wrong = fill(queue, PyTuple_GetItem(args, 6));
    if (wrong != NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, wrong);
    PyObject *capsule = wrong == NULL ? PyCapsule_New(queue, QUEUE, end_queue) : NULL;
    if (capsule == NULL)
        free_queue(queue);
    return capsule;
}

static void solve(const queue_t *queue, ptrdiff_t k)
{
    const problem_t *problem = queue->problem + k;
    const graph_t *graph = queue->graph[problem->graph];
    const Py_buffer *at = graph->given.of;
    const limits_t *limits = queue->limits + problem->graph;
    found_t *out = (found_t *)queue->given.of[FOUND_AT].buf + k;
    ptrdiff_t count = (ptrdiff_t)(problem->end - problem->begin);
    if (graph->kind == OF_BITS) {
        ptrdiff_t words = at->shape[1];
        solve_bits((const uint64_t *)at->buf + problem->begin * words, words, count, limits, out);
    } else if (graph->kind == OF_LISTS) {
        edges_t part = {count, graph->right, (const int64_t *)at->buf + problem->begin, at[1].buf, at[2].buf};
        solve_edges(&part, (ptrdiff_t)problem->touched, limits, out);
    } else
        solve_weights(at->buf, at->itemsize, at->shape[0], at->shape[1], graph->largest, limits, out);
}

/* work(queue): solve what nobody has begun until nothing is left. Signals are seen about once a second. */
PyObject *work_on(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    (void)self;
    if (!PyArg_ParseTuple(args, "O", &capsule))
        return NULL;
    const queue_t *queue = PyCapsule_GetPointer(capsule, QUEUE);
    if (queue == NULL)
        return NULL;
    int64_t *next = queue->given.of[NEXT_AT].buf, k;
    int ended = 0;
    while (!ended) {
        time_t begin = time(NULL);
        Py_BEGIN_ALLOW_THREADS
        while (!ended && time(NULL) - begin < 1) {
            k = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
            ended = k < 0 || k >= queue->count;
            if (!ended)
                solve(queue, k);
        }
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() != 0)
            return NULL;
    }
    Py_RETURN_NONE;
}
