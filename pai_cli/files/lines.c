/* Lines of cells, as lists of edges are written: every name gets a number, equal names the same, in one pass over the bytes.
 *
 * Only the plainest text is taken: as many cells in every line, none of them empty, one sign between two, nothing but visible
 * ASCII in a cell and no quote. Anything else is left to Python, which knows more. */
#include "../spectral/compiled/buffers.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    const uint8_t *text;
    int64_t *names;   /* where each begins, and its length */
    Py_ssize_t count; /* of names */
    int32_t *slots;   /* a number of a name, or -1; as many as a power of 2 */
    uint32_t *hashes; /* of each name */
    Py_ssize_t size, room;
} names_t;

static uint64_t hash_of(const uint8_t *at, Py_ssize_t length, uint64_t seed)
{
    uint64_t hash = seed ^ ((uint64_t)length * UINT64_C(0x9E3779B97F4A7C15));
    for (; length > 0; at += 8, length -= 8) {
        uint64_t word = 0;
        memcpy(&word, at, length < 8 ? (size_t)length : 8);
        hash = (hash ^ word) * UINT64_C(0xBF58476D1CE4E5B9);
        hash ^= hash >> 29;
    }
    return hash ^ (hash >> 32);
}

static int grow(names_t *names)
{
    Py_ssize_t size = names->size * 2, room = size / 2;
    int32_t *slots = malloc((size_t)size * sizeof(int32_t));
    uint32_t *hashes = realloc(names->hashes, (size_t)room * sizeof(uint32_t));
    if (hashes != NULL)
        names->hashes = hashes;
    if (slots == NULL || hashes == NULL) {
        free(slots);
        return 0;
    }
    memset(slots, -1, (size_t)size * sizeof(int32_t));
    for (Py_ssize_t k = 0; k < names->count; k++) {
        Py_ssize_t at = (Py_ssize_t)hashes[k] & (size - 1);
        while (slots[at] >= 0)
            at = (at + 1) & (size - 1);
        slots[at] = (int32_t)k;
    }
    free(names->slots);
    names->slots = slots, names->size = size, names->room = room;
    return 1;
}

/* The number of a name; -1: no memory. Names of another `kind` are others. */
static int32_t number_of(names_t *names, Py_ssize_t begin, Py_ssize_t length, int kind)
{
    uint32_t hash = (uint32_t)hash_of(names->text + begin, length, kind ? UINT64_C(0x94D049BB133111EB) : 0);
    int64_t told = (int64_t)length * 2 + kind;
    Py_ssize_t at = (Py_ssize_t)hash & (names->size - 1);
    for (; names->slots[at] >= 0; at = (at + 1) & (names->size - 1)) {
        const int64_t *known = names->names + 2 * names->slots[at];
        if (names->hashes[names->slots[at]] == hash && known[1] == told &&
            memcmp(names->text + known[0], names->text + begin, (size_t)length) == 0)
            return names->slots[at];
    }
    if (names->count == names->room) {
        if (!grow(names))
            return -1;
        return number_of(names, begin, length, kind);
    }
    names->hashes[names->count] = hash;
    names->names[2 * names->count] = begin, names->names[2 * names->count + 1] = told;
    names->slots[at] = (int32_t)names->count;
    return (int32_t)names->count++;
}

typedef struct {
    Py_ssize_t columns;
    uint8_t between;
    int apart; /* names of the first column are none of the second */
} form_t;

/* Where the cell that begins at `at` ends; -1: it is not so plain. */
static Py_ssize_t end_of_cell(const uint8_t *text, Py_ssize_t at, Py_ssize_t size, uint8_t between)
{
    Py_ssize_t begin = at;
    while (at < size && text[at] != between && text[at] > ' ' && text[at] < 0x7F && text[at] != '"')
        at++;
    return at > begin && at < size && (text[at] == between || text[at] == '\n') ? at : -1;
}

/* A number as decimal digits have it; text ends with a line's end. */
static int value_of(const uint8_t *at, const uint8_t *end, double *out)
{
    for (const uint8_t *sign = at; sign < end; sign++)
        if (strchr("0123456789+-.eE", *sign) == NULL)
            return 0;
    char *stopped;
    *out = strtod((const char *)at, &stopped);
    return stopped == (const char *)end && isfinite(*out);
}

enum { FINE = 0, NOT_PLAIN = -1, NO_MEMORY = -2 };

static int read_lines(names_t *names, Py_ssize_t size, const form_t *form, int32_t *numbers, Py_ssize_t lines, double *values)
{
    const uint8_t *text = names->text;
    Py_ssize_t at = 0;
    for (Py_ssize_t line = 0; line < lines; line++) {
        if (at < size && (text[at] == '#' || text[at] == '%'))
            return NOT_PLAIN;
        for (Py_ssize_t cell = 0; cell < form->columns; cell++) {
            Py_ssize_t end = end_of_cell(text, at, size, form->between);
            if (end < 0 || (text[end] == '\n') != (cell == form->columns - 1))
                return NOT_PLAIN;
            if (cell < 2) {
                int32_t number = number_of(names, at, end - at, form->apart && cell == 1);
                if (number < 0)
                    return NO_MEMORY;
                numbers[2 * line + cell] = number;
            } else if (cell == 2 && values != NULL && !value_of(text + at, text + end, values + line))
                return NOT_PLAIN;
            at = end + 1;
        }
    }
    return at == size ? FINE : NOT_PLAIN;
}

#define FIRST_SIZE 1024

/* number(text, numbers, names, values, columns, between, apart): how many names there are; None where it is not so plain.
 * `numbers`: two a line. `names`: room for as many, each its place and its length; of those that are `apart`, twice that and
 * 1 for the second column. `values`: of the third column, or nothing. */
static PyObject *number(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {
        {"text", "u", 1, 1, 0}, {"numbers", "i", 4, 2, 1}, {"names", "i", 8, 2, 1}, {"values", "f", 8, 1, 1}};
    buffers_t given;
    Py_ssize_t columns, between, apart;
    (void)self;
    if (!take_buffers(args, 7, wanted, 4, &given))
        return NULL;
    if (!take_integer(args, 4, "columns", 2, 1 << 20, &columns) || !take_integer(args, 5, "between", 1, 127, &between) ||
        !take_integer(args, 6, "apart", 0, 1, &apart)) {
        release(&given);
        return NULL;
    }
    const Py_buffer *at = given.of;
    Py_ssize_t size = at[0].len, lines = at[1].shape[0];
    int valued = at[3].shape[0] > 0;
    const uint8_t *text = at[0].buf;
    if (size < 1 || text[size - 1] != '\n')
        return refused(&given, "text: does not end with a line's end");
    if (at[1].shape[1] != 2 || at[2].shape[1] != 2 || lines > INT32_MAX / 2 || at[2].shape[0] < 2 * lines ||
        (valued && (at[3].shape[0] != lines || columns < 3)))
        return refused(&given, "numbers, names and values: not of the size of so many lines");
    names_t names = {text, at[2].buf, 0, NULL, NULL, FIRST_SIZE, 0};
    form_t form = {columns, (uint8_t)between, (int)apart};
    int told = NO_MEMORY;
    Py_BEGIN_ALLOW_THREADS
    if (grow(&names))
        told = read_lines(&names, size, &form, at[1].buf, lines, valued ? at[3].buf : NULL);
    Py_END_ALLOW_THREADS
    free(names.slots);
    free(names.hashes);
    release(&given);
    if (told == NO_MEMORY)
        return PyErr_NoMemory();
    if (told == NOT_PLAIN)
        Py_RETURN_NONE;
    return PyLong_FromSsize_t(names.count);
}

static PyMethodDef methods[] = {
    {"number", number, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_lines", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__lines(void)
{
    return PyModule_Create(&definition);
}
