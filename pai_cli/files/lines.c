/* Lines of cells, as lists of edges are written: every name gets a number, equal names the same, in one pass over the bytes.
 * A table of names is kept from text to text: what many files name is one name.
 *
 * Only the plainest text is taken: as many cells in every line, none of them empty, one sign between two, nothing but visible
 * ASCII in a cell and no quote. Anything else is left to Python, which knows more. */
#include "../spectral/compiled/buffers.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    uint32_t hash;
    int32_t number; /* of a name; -1: nothing is here */
} slot_t;

typedef struct {
    uint64_t *words;    /* of each name its bytes, and one or more that no name has, up to a whole word */
    Py_ssize_t *begins; /* where the words of each name begin */
    slot_t *slots;      /* as many as a power of 2, twice the names or more */
    Py_ssize_t used, room, size;
    int32_t count;
    int busy; /* in another thread */
} names_t;

#define FIRST_SIZE 1024
#define MOST_SIZE ((Py_ssize_t)1 << 31) /* so that int32 numbers half as many names */

static Py_ssize_t free_place(const names_t *names, uint32_t hash)
{
    Py_ssize_t at = (Py_ssize_t)hash & (names->size - 1);
    while (names->slots[at].number >= 0)
        at = (at + 1) & (names->size - 1);
    return at;
}

static int more_slots(names_t *names)
{
    slot_t *old = names->slots;
    Py_ssize_t before = names->size, size = before ? before * 2 : FIRST_SIZE;
    if (size > MOST_SIZE)
        return 0;
    Py_ssize_t *begins = realloc(names->begins, (size_t)size / 2 * sizeof(Py_ssize_t));
    if (begins != NULL)
        names->begins = begins;
    slot_t *slots = malloc((size_t)size * sizeof(slot_t));
    if (begins == NULL || slots == NULL) {
        free(slots);
        return 0;
    }
    memset(slots, -1, (size_t)size * sizeof(slot_t));
    names->slots = slots, names->size = size;
    for (Py_ssize_t k = 0; k < before; k++)
        if (old[k].number >= 0)
            slots[free_place(names, old[k].hash)] = old[k];
    free(old);
    return 1;
}

/* Room for one more name, of `count` words; 0: no memory. */
static int make_room(names_t *names, Py_ssize_t count)
{
    if (names->room - names->used < count) {
        Py_ssize_t room = 2 * names->room + count + FIRST_SIZE;
        uint64_t *words = realloc(names->words, (size_t)room * sizeof(uint64_t));
        if (words == NULL)
            return 0;
        names->words = words, names->room = room;
    }
    return names->count < names->size / 2 || more_slots(names);
}

/* A word of the `length` bytes of a name that are left, filled up; the text goes on for `left` bytes, at least one. */
static uint64_t word_at(const uint8_t *at, Py_ssize_t length, Py_ssize_t left, uint64_t filling)
{
    static const uint8_t kept[16] = {255, 255, 255, 255, 255, 255, 255, 255};
    uint64_t word = 0, mask;
    if (left >= 8)
        memcpy(&word, at, 8);
    else
        memcpy(&word, at, (size_t)left);
    if (length >= 8)
        return word;
    memcpy(&mask, kept + 8 - length, 8);
    return (word & mask) | (filling & ~mask);
}

/* Whether two names are one: the last word of a name is no word within another. */
static int same(const uint64_t *a, const uint64_t *b, Py_ssize_t count)
{
    Py_ssize_t k = 0;
    while (k < count && a[k] == b[k])
        k++;
    return k == count;
}

/* The number of a name; -1: no memory. Names that are filled up with other bytes are others. */
static int32_t number_of(names_t *names, const uint8_t *at, Py_ssize_t length, Py_ssize_t left, uint64_t filling)
{
    Py_ssize_t count = length / 8 + 1;
    if (!make_room(names, count))
        return -1;
    uint64_t *own = names->words + names->used, mixed = 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        own[k] = word_at(at + 8 * k, length - 8 * k, left - 8 * k, filling);
        mixed = (mixed ^ own[k]) * UINT64_C(0xBF58476D1CE4E5B9);
        mixed ^= mixed >> 29;
    }
    uint32_t hash = (uint32_t)(mixed ^ (mixed >> 32));
    Py_ssize_t place = (Py_ssize_t)hash & (names->size - 1);
    for (; names->slots[place].number >= 0; place = (place + 1) & (names->size - 1)) {
        slot_t known = names->slots[place];
        if (known.hash == hash && same(names->words + names->begins[known.number], own, count))
            return known.number;
    }
    names->slots[place] = (slot_t){hash, names->count};
    names->begins[names->count] = names->used;
    names->used += count;
    return names->count++;
}

typedef struct {
    Py_ssize_t columns;
    uint64_t fillings[2]; /* of names of the first and the second column */
    uint8_t between;
    uint8_t plain[256]; /* whether a byte may stand in a cell */
} form_t;

static form_t form_of(Py_ssize_t columns, Py_ssize_t between, Py_ssize_t apart)
{
    const uint64_t of_each = UINT64_C(0x0101010101010101);
    form_t form = {columns, {of_each * '\n', of_each * (apart ? ' ' : '\n')}, (uint8_t)between, {0}};
    memset(form.plain + ' ' + 1, 1, 0x7F - ' ' - 1);
    form.plain['"'] = form.plain[form.between] = 0;
    return form;
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

/* Text ends with a line's end, which is in no cell. */
static int read_lines(names_t *names, const uint8_t *at, const uint8_t *stop, const form_t *form, int32_t *numbers,
                      Py_ssize_t lines, double *values)
{
    for (Py_ssize_t line = 0; line < lines; line++) {
        if (at < stop && (*at == '#' || *at == '%'))
            return NOT_PLAIN;
        for (Py_ssize_t cell = 0; cell < form->columns; cell++) {
            const uint8_t *end = at;
            while (end < stop && form->plain[*end])
                end++;
            if (end == at || end == stop || *end != (cell == form->columns - 1 ? '\n' : form->between))
                return NOT_PLAIN;
            if (cell < 2) {
                int32_t number = number_of(names, at, end - at, stop - at, form->fillings[cell]);
                if (number < 0)
                    return NO_MEMORY;
                numbers[2 * line + cell] = number;
            } else if (cell == 2 && values != NULL && !value_of(at, end, values + line))
                return NOT_PLAIN;
            at = end + 1;
        }
    }
    return at == stop ? FINE : NOT_PLAIN;
}

static const char TABLE[] = "pai_cli.files._lines.table";

static void drop(PyObject *capsule)
{
    names_t *names = PyCapsule_GetPointer(capsule, TABLE);
    free(names->words);
    free(names->begins);
    free(names->slots);
    free(names);
}

/* table(): of no names yet. */
static PyObject *table(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    names_t *names = calloc(1, sizeof(names_t));
    if (names == NULL)
        return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(names, TABLE, drop);
    if (capsule == NULL)
        free(names);
    return capsule;
}

/* The table that an argument is; NULL and an exception where it is none, or another thread is at it. */
static names_t *take_table(PyObject *args, int at)
{
    names_t *names = PyCapsule_GetPointer(PyTuple_GetItem(args, at), TABLE);
    if (names == NULL || !names->busy)
        return names;
    PyErr_SetString(PyExc_ValueError, "table: another thread is at it");
    return NULL;
}

/* names(table, first): the names from number `first` on, with blanks and ends of lines between. */
static PyObject *names_from(PyObject *self, PyObject *args)
{
    buffers_t none;
    Py_ssize_t first;
    (void)self;
    if (!take_buffers(args, 2, NULL, 0, &none))
        return NULL;
    names_t *names = take_table(args, 0);
    if (names == NULL || !take_integer(args, 1, "first", 0, names->count, &first))
        return NULL;
    Py_ssize_t begin = first < names->count ? names->begins[first] : names->used;
    return PyBytes_FromStringAndSize(begin < names->used ? (const char *)(names->words + begin) : NULL,
                                     (names->used - begin) * (Py_ssize_t)sizeof(uint64_t));
}

/* number(text, numbers, values, table, columns, between, apart): how many names the table then has; None where the text is
 * not so plain, and the table may have names of it all the same. `numbers`: two a line. `values`: of the third column, or
 * nothing. `apart`: a name of the first column is none of the second. */
static PyObject *number(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"text", "u", 1, 1, 0}, {"numbers", "i", 4, 2, 1}, {"values", "f", 8, 1, 1}};
    buffers_t given;
    Py_ssize_t columns, between, apart;
    (void)self;
    if (!take_buffers(args, 7, wanted, 3, &given))
        return NULL;
    names_t *names = take_table(args, 3);
    if (names == NULL || !take_integer(args, 4, "columns", 2, 1 << 20, &columns) ||
        !take_integer(args, 5, "between", 1, 127, &between) || !take_integer(args, 6, "apart", 0, 1, &apart)) {
        release(&given);
        return NULL;
    }
    const Py_buffer *at = given.of;
    const uint8_t *text = at[0].buf, *stop = text + at[0].len;
    Py_ssize_t lines = at[1].shape[0];
    int valued = at[2].shape[0] > 0;
    if (at[0].len < 1 || stop[-1] != '\n')
        return refused(&given, "text: does not end with a line's end");
    if (at[1].shape[1] != 2 || (valued && (at[2].shape[0] != lines || columns < 3)))
        return refused(&given, "numbers and values: not of the size of so many lines");
    const form_t form = form_of(columns, between, apart);
    int told;
    names->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    told = read_lines(names, text, stop, &form, at[1].buf, lines, valued ? at[2].buf : NULL);
    Py_END_ALLOW_THREADS
    names->busy = 0;
    release(&given);
    if (told == NO_MEMORY)
        return PyErr_NoMemory();
    if (told == NOT_PLAIN)
        Py_RETURN_NONE;
    return PyLong_FromLong(names->count);
}

static PyMethodDef methods[] = {
    {"table", table, METH_NOARGS, NULL},
    {"names", names_from, METH_VARARGS, NULL},
    {"number", number, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_lines", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__lines(void)
{
    return PyModule_Create(&definition);
}
