/* Keys above a window as bits, eight to a byte, the first the highest as NumPy packs them; and the places of those inside.
 * One pass over keys that lie in the cache, with the interpreter let go. */
#include "../../spectral/compiled/buffers.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bits are packed for little-endian machines; without this part NumPy does the work"
#endif

/* Built for the plain instruction set and, where the loader can choose, for those with wide vectors as well. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

#define BLOCK 64 /* keys compared at a time: a word of bits */

typedef struct {
    uint64_t above, inside; /* how many */
    Py_ssize_t room;        /* of places; of more inside only the number is told */
    uint32_t *places;
} sifted_t;

/* Eight bytes that are 0 or 1 to eight bits, the first byte to the highest: a product in which no two meet. */
static inline uint8_t packed(const uint8_t *flags)
{
    uint64_t word;
    memcpy(&word, flags, sizeof word);
    return (uint8_t)((word * UINT64_C(0x8040201008040201)) >> 56);
}

/* The places of the flags of a block that are set; of more than there is room for only their number. */
static inline void note(const uint8_t *flags, uint32_t begin, unsigned count, sifted_t *out)
{
    if ((Py_ssize_t)(out->inside + count) > out->room) {
        out->inside += count;
        return;
    }
    for (uint32_t byte = 0; byte < BLOCK / 8; byte++) {
        uint64_t word;
        memcpy(&word, flags + 8 * byte, sizeof word);
        for (; word; word &= word - 1)
            out->places[out->inside++] = begin + 8 * byte + (uint32_t)__builtin_ctzll(word) / 8;
    }
}

#define SIFT(name, type)                                                                                                   \
    WIDE static void name(const void *given, Py_ssize_t size, uint64_t low, uint64_t last, uint8_t *bits, sifted_t *out)   \
    {                                                                                                                      \
        const type *keys = given, least = (type)low, most = (type)last;                                                    \
        uint8_t above[BLOCK], inside[BLOCK];                                                                               \
        for (Py_ssize_t begin = 0; begin < size; begin += BLOCK) {                                                         \
            int count = size - begin < BLOCK ? (int)(size - begin) : BLOCK;                                                \
            unsigned high = 0, within = 0;                                                                                 \
            if (count < BLOCK) {                                                                                           \
                memset(above, 0, sizeof above);                                                                            \
                memset(inside, 0, sizeof inside);                                                                          \
                for (int k = 0; k < count; k++) {                                                                          \
                    above[k] = keys[begin + k] > most;                                                                     \
                    inside[k] = (keys[begin + k] >= least) ^ above[k];                                                     \
                    high += above[k], within += inside[k];                                                                 \
                }                                                                                                          \
            } else                                                                                                         \
                for (int k = 0; k < BLOCK; k++) {                                                                          \
                    above[k] = keys[begin + k] > most;                                                                     \
                    inside[k] = (keys[begin + k] >= least) ^ above[k];                                                     \
                    high += above[k], within += inside[k];                                                                 \
                }                                                                                                          \
            for (int k = 0; k < (count + 7) / 8; k++)                                                                      \
                bits[begin / 8 + k] = packed(above + 8 * k);                                                               \
            out->above += high;                                                                                            \
            if (within)                                                                                                    \
                note(inside, (uint32_t)begin, within, out);                                                                \
        }                                                                                                                  \
    }

SIFT(sift_16, uint16_t)
SIFT(sift_32, uint32_t)
SIFT(sift_64, uint64_t)

/* Arguments `at` and the next, as the least and the largest key of `width` bytes in the window. */
static int take_window(PyObject *args, int at, Py_ssize_t width, uint64_t *low, uint64_t *last)
{
    const uint64_t most = UINT64_MAX >> (64 - 8 * width);
    *low = PyLong_AsUnsignedLongLong(PyTuple_GetItem(args, at));
    if (!PyErr_Occurred())
        *last = PyLong_AsUnsignedLongLong(PyTuple_GetItem(args, at + 1));
    if (PyErr_Occurred())
        return 0;
    if (*low <= most && *last <= most && (*low <= *last || *low - *last == 1))
        return 1;
    PyErr_SetString(PyExc_ValueError, "no window of such keys");
    return 0;
}

/* sift(keys, bits, places, low, last): how many above, how many inside. */
static PyObject *sift(PyObject *self, PyObject *args)
{
    const wanted_t wanted[] = {{"keys", "u", 0, 1, 0}, {"bits", "u", 1, 1, 1}, {"places", "u", 4, 1, 1}};
    buffers_t given;
    uint64_t low = 0, last = 0;
    (void)self;
    if (!take_buffers(args, 5, wanted, 3, &given))
        return NULL;
    const Py_buffer *keys = given.of, *bits = given.of + 1, *places = given.of + 2;
    Py_ssize_t width = keys->itemsize, size = keys->shape[0];
    if ((width != 2 && width != 4 && width != 8) || size > (Py_ssize_t)1 << 32)
        return refused(&given, "the compiled part sifts contiguous keys of 2, 4 or 8 bytes, 2^32 at most");
    if (bits->shape[0] != (size + 7) / 8)
        return refused(&given, "bits: one is needed for each key");
    if (!take_window(args, 3, width, &low, &last)) {
        release(&given);
        return NULL;
    }
    sifted_t out = {0, 0, places->shape[0], places->buf};
    Py_BEGIN_ALLOW_THREADS
    (width == 2 ? sift_16 : width == 4 ? sift_32 : sift_64)(keys->buf, size, low, last, bits->buf, &out);
    Py_END_ALLOW_THREADS
    release(&given);
    return Py_BuildValue("KK", (unsigned long long)out.above, (unsigned long long)out.inside);
}

static PyMethodDef methods[] = {{"sift", sift, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_sift", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sift(void)
{
    return PyModule_Create(&definition);
}
