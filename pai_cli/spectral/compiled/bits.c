/* 0/1 matrices as bits: packing, transposition, Gram matrices by counting common neighbours, connected components. */
#include "kernel.h"

#include <string.h>

#ifdef HAS_WIDEST
#include <immintrin.h>
#endif

/* Eight bytes, each zero or not, as eight bits. */
ALWAYS uint64_t bits_of(uint64_t bytes)
{
    bytes |= bytes >> 4;
    bytes |= bytes >> 2;
    bytes |= bytes >> 1;
    bytes &= 0x0101010101010101u;
    return (bytes * 0x0102040810204080u) >> 56;
}

/* A row of bytes as bits; how many of them are set. */
typedef int64_t pack_t(const uint8_t *row, ptrdiff_t columns, uint64_t *out);

ALWAYS int64_t pack_narrow(const uint8_t *row, ptrdiff_t columns, uint64_t *out)
{
    int64_t count = 0;
    for (ptrdiff_t from = 0; from < columns; from += 64) {
        uint64_t word = 0;
        for (ptrdiff_t at = from; at < columns && at < from + 64; at += 8) {
            uint64_t bytes = 0;
            memcpy(&bytes, row + at, (size_t)(columns - at < 8 ? columns - at : 8));
            word |= bits_of(bytes) << (at - from);
        }
        *out++ = word;
        count += __builtin_popcountll(word);
    }
    return count;
}

/* The 64 x 64 transpose of Warren, "Hacker's Delight", 7-3, for words whose first entry is the lowest bit. */
ALWAYS void transpose_block(uint64_t a[64])
{
    uint64_t low = 0x00000000FFFFFFFFu;
    for (int j = 32; j != 0; j >>= 1, low ^= low << j)
        for (int k = 0; k < 64; k = (k + j + 1) & ~j) {
            uint64_t t = ((a[k] >> j) ^ a[k + j]) & low;
            a[k] ^= t << j;
            a[k + j] ^= t;
        }
}

/* out (words * 64 rows of `out_words`, the first that many as there are columns in `in`) = in^T. */
WIDE void transpose_bits(const uint64_t *in, ptrdiff_t rows, ptrdiff_t words, uint64_t *out, ptrdiff_t out_words)
{
    uint64_t block[64];
    for (ptrdiff_t b = 0; b < out_words; b++)
        for (ptrdiff_t w = 0; w < words; w++) {
            for (ptrdiff_t k = 0; k < 64; k++)
                block[k] = b * 64 + k < rows ? in[(b * 64 + k) * words + w] : 0;
            transpose_block(block);
            for (ptrdiff_t k = 0; k < 64; k++)
                out[(w * 64 + k) * out_words + b] = block[k];
        }
}

ALWAYS void pack_by(const uint8_t *mask, ptrdiff_t rows, ptrdiff_t columns, uint64_t *out, int64_t *degrees,
                    uint64_t *scratch, pack_t *pack)
{
    ptrdiff_t words = (columns + 63) / 64, out_words = (rows + 63) / 64;
    uint64_t block[64];
    for (ptrdiff_t b = 0; b < out_words; b++) {
        ptrdiff_t count = rows - b * 64 < 64 ? rows - b * 64 : 64;
        for (ptrdiff_t k = 0; k < count; k++)
            degrees[b * 64 + k] = pack(mask + (b * 64 + k) * columns, columns, scratch + k * words);
        for (ptrdiff_t w = 0; w < words; w++) {
            for (ptrdiff_t k = 0; k < 64; k++)
                block[k] = k < count ? scratch[k * words + w] : 0;
            transpose_block(block);
            for (ptrdiff_t k = 0; k < 64; k++)
                out[(w * 64 + k) * out_words + b] = block[k];
        }
    }
}

WIDE static void pack_columns_narrow(const uint8_t *mask, ptrdiff_t rows, ptrdiff_t columns, uint64_t *out, int64_t *degrees,
                                     uint64_t *scratch)
{
    pack_by(mask, rows, columns, out, degrees, scratch, pack_narrow);
}

#ifdef HAS_WIDEST
WIDEST __attribute__((always_inline)) static inline int64_t pack_widest(const uint8_t *row, ptrdiff_t columns, uint64_t *out)
{
    int64_t count = 0;
    for (ptrdiff_t at = 0; at < columns; at += 64) {
        __mmask64 there = columns - at >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (columns - at)) - 1;
        __m512i bytes = _mm512_maskz_loadu_epi8(there, row + at);
        *out = _mm512_test_epi8_mask(bytes, bytes);
        count += __builtin_popcountll(*out++);
    }
    return count;
}

WIDEST static void pack_columns_widest(const uint8_t *mask, ptrdiff_t rows, ptrdiff_t columns, uint64_t *out,
                                       int64_t *degrees, uint64_t *scratch)
{
    pack_by(mask, rows, columns, out, degrees, scratch, pack_widest);
}
#endif

/* Columns of a mask of bytes as rows of bits: `out` has columns rounded up to 64 rows of ceil(rows / 64) words; `degrees`:
 * how many bytes of each row are not 0; `scratch` has room for 64 packed rows. */
void pack_columns(const uint8_t *mask, ptrdiff_t rows, ptrdiff_t columns, uint64_t *out, int64_t *degrees, uint64_t *scratch)
{
#ifdef HAS_WIDEST
    if (RUNS_WIDEST) {
        pack_columns_widest(mask, rows, columns, out, degrees, scratch);
        return;
    }
#endif
    pack_columns_narrow(mask, rows, columns, out, degrees, scratch);
}

/* The rows that have a bit, sorted by how many they have, those with as many in their order: to `out`, which rows they are to
 * `row`, their bits' numbers to `degree`; how many there are. `scratch` has room for rows + 64 * words + 2. */
WIDE ptrdiff_t arrange(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words, uint64_t *out, int64_t *row, int64_t *degree,
                       int64_t *scratch)
{
    int64_t *own = scratch, *place = scratch + rows, most = 64 * words;
    memset(place, 0, (size_t)(most + 2) * sizeof(int64_t));
    for (ptrdiff_t r = 0; r < rows; r++) {
        own[r] = 0;
        for (ptrdiff_t w = 0; w < words; w++)
            own[r] += __builtin_popcountll(bits[r * words + w]);
        place[own[r] + 1]++;
    }
    ptrdiff_t isolated = (ptrdiff_t)place[1];
    place[1] = 0; /* where those of degree 1 begin */
    for (int64_t d = 2; d <= most; d++)
        place[d] += place[d - 1];
    for (ptrdiff_t r = 0; r < rows; r++)
        if (own[r] > 0) {
            int64_t at = place[own[r]]++;
            memcpy(out + at * words, bits + r * words, (size_t)words * sizeof(uint64_t));
            row[at] = r, degree[at] = own[r];
        }
    return rows - isolated;
}

static int is_live(const uint64_t *row, ptrdiff_t words)
{
    uint64_t any = 0;
    for (ptrdiff_t w = 0; w < words; w++)
        any |= row[w];
    return any != 0;
}

ptrdiff_t count_live(const uint64_t *bits, ptrdiff_t rows, ptrdiff_t words)
{
    ptrdiff_t live = 0;
    for (ptrdiff_t r = 0; r < rows; r++)
        live += is_live(bits + r * words, words);
    return live;
}

/* Move the rows with a bit set to the front. */
void live_rows(uint64_t *bits, ptrdiff_t rows, ptrdiff_t words)
{
    ptrdiff_t kept = 0;
    for (ptrdiff_t r = 0; r < rows; r++)
        if (is_live(bits + r * words, words)) {
            if (kept != r)
                memcpy(bits + kept * words, bits + r * words, (size_t)words * sizeof(uint64_t));
            kept++;
        }
}

/* Common neighbours of two rows with two: four counts a word read of each. */
ALWAYS void counts_two_by_two(const uint64_t *p, const uint64_t *q, ptrdiff_t step, ptrdiff_t words, int64_t out[4])
{
    int64_t a = 0, b = 0, c = 0, d = 0;
    for (ptrdiff_t w = 0; w < words; w++) {
        uint64_t p0 = p[w], p1 = p[step + w], q0 = q[w], q1 = q[step + w];
        a += __builtin_popcountll(p0 & q0);
        b += __builtin_popcountll(p0 & q1);
        c += __builtin_popcountll(p1 & q0);
        d += __builtin_popcountll(p1 & q1);
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

typedef void counts_t(const uint64_t *p, const uint64_t *q, ptrdiff_t step, ptrdiff_t words, int64_t out[4]);

ALWAYS void gram_by(const uint64_t *bits, ptrdiff_t words, double *gram, ptrdiff_t ld, counts_t *count)
{
    const ptrdiff_t tile = 32; /* rows of a tile of the result, so that both its factors stay in the first cache */
    for (ptrdiff_t top = 0; top < ld; top += tile)
        for (ptrdiff_t left = 0; left <= top; left += tile) {
            ptrdiff_t bottom = top + tile < ld ? top + tile : ld;
            for (ptrdiff_t i = top; i < bottom; i += 2)
                for (ptrdiff_t j = left; j < left + tile && j <= i; j += 2) {
                    int64_t counts[4];
                    count(bits + i * words, bits + j * words, words, words, counts);
                    gram[i * ld + j] = (double)counts[0];
                    if (j < i)
                        gram[i * ld + j + 1] = (double)counts[1];
                    gram[(i + 1) * ld + j] = (double)counts[2];
                    gram[(i + 1) * ld + j + 1] = (double)counts[3];
                }
        }
}

WIDE static void gram_narrow(const uint64_t *bits, ptrdiff_t words, double *gram, ptrdiff_t ld)
{
    gram_by(bits, words, gram, ld, counts_two_by_two);
}

#ifdef HAS_WIDEST
typedef int64_t eight __attribute__((vector_size(64)));

WIDEST __attribute__((always_inline)) static inline void counts_widest(const uint64_t *p, const uint64_t *q, ptrdiff_t step,
                                                                       ptrdiff_t words, int64_t out[4])
{
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (ptrdiff_t w = 0; w < words; w += 8) {
        __mmask8 there = words - w >= 8 ? 0xFF : (__mmask8)((1u << (words - w)) - 1);
        __m512i p0 = _mm512_maskz_loadu_epi64(there, p + w), p1 = _mm512_maskz_loadu_epi64(there, p + step + w);
        __m512i q0 = _mm512_maskz_loadu_epi64(there, q + w), q1 = _mm512_maskz_loadu_epi64(there, q + step + w);
        a = _mm512_add_epi64(a, _mm512_popcnt_epi64(_mm512_and_si512(p0, q0)));
        b = _mm512_add_epi64(b, _mm512_popcnt_epi64(_mm512_and_si512(p0, q1)));
        c = _mm512_add_epi64(c, _mm512_popcnt_epi64(_mm512_and_si512(p1, q0)));
        d = _mm512_add_epi64(d, _mm512_popcnt_epi64(_mm512_and_si512(p1, q1)));
    }
    eight ab = (eight)_mm512_unpacklo_epi64(a, b) + (eight)_mm512_unpackhi_epi64(a, b);
    eight cd = (eight)_mm512_unpacklo_epi64(c, d) + (eight)_mm512_unpackhi_epi64(c, d);
    eight all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    for (int k = 0; k < 4; k++)
        out[k] = all[k] + all[k + 4];
}

WIDEST static void gram_widest(const uint64_t *bits, ptrdiff_t words, double *gram, ptrdiff_t ld)
{
    gram_by(bits, words, gram, ld, counts_widest);
}
#endif

/* Exact: entry (i, j) counts the neighbours that rows i and j share. `bits` has ld rows, those past n zero. */
void gram_of_bits(const uint64_t *bits, ptrdiff_t words, double *gram, ptrdiff_t ld)
{
#ifdef HAS_WIDEST
    if (RUNS_WIDEST) {
        gram_widest(bits, words, gram, ld);
        return;
    }
#endif
    gram_narrow(bits, words, gram, ld);
}

#define PASSES 16 /* over all left vertices; layers take two or three */

static int32_t root_of(int32_t *parent, int32_t at)
{
    while (parent[at] != at)
        at = parent[at] = parent[parent[at]];
    return at;
}

/* Widen `reached` (a set of right vertices) by every left vertex that touches it, until none does; 0: not in a few passes,
 * as in a graph like a path. */
static int reach(const uint64_t *bits, ptrdiff_t left, ptrdiff_t words, uint64_t *reached)
{
    int grew = 1;
    for (int pass = 0; grew && pass < PASSES; pass++) {
        grew = 0;
        for (ptrdiff_t v = 0; v < left; v++) {
            const uint64_t *row = bits + v * words;
            uint64_t common = 0, beyond = 0;
            for (ptrdiff_t w = 0; w < words; w++) {
                common |= row[w] & reached[w];
                beyond |= row[w] & ~reached[w];
            }
            if (common != 0 && beyond != 0) {
                grew = 1;
                for (ptrdiff_t w = 0; w < words; w++)
                    reached[w] |= row[w];
            }
        }
    }
    return !grew;
}

static ptrdiff_t join(const uint64_t *row, ptrdiff_t words, int32_t *parent)
{
    ptrdiff_t change = 0;
    int32_t first = -1;
    for (ptrdiff_t w = 0; w < words; w++)
        for (uint64_t rest = row[w]; rest != 0; rest &= rest - 1) {
            int32_t at = (int32_t)(w * 64 + __builtin_ctzll(rest));
            if (parent[at] < 0)
                parent[at] = at, change++;
            int32_t root = root_of(parent, at);
            if (first < 0)
                first = root;
            else if (root != first)
                parent[root] = first, change--;
        }
    return change;
}

/* Connected components among left vertices (rows of `bits`, each with a bit) and the right ones they touch: the one of
 * the last left vertex by widening a set, which takes two or three passes in a layer, what is left of the rest by
 * union-find. `reached` has room for `words`, `parent` for words * 64. */
ptrdiff_t components_of_bits(const uint64_t *bits, ptrdiff_t left, ptrdiff_t words, uint64_t *reached, int32_t *parent)
{
    memcpy(reached, bits + (left - 1) * words, (size_t)words * sizeof(uint64_t));
    ptrdiff_t count = reach(bits, left, words, reached);
    if (count == 0)
        memset(reached, 0, (size_t)words * sizeof(uint64_t));
    for (ptrdiff_t r = 0; r < words * 64; r++)
        parent[r] = -1;
    for (ptrdiff_t v = 0; v < left; v++) {
        uint64_t common = 0;
        for (ptrdiff_t w = 0; w < words; w++)
            common |= bits[v * words + w] & reached[w];
        if (common == 0)
            count += join(bits + v * words, words, parent);
    }
    return count;
}
