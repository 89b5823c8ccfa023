/* y = x W' + b for rows x, by weights that are laid out once, for translating on a CPU.

   A decoder multiplies few rows by weights that come from memory, at each step anew. So while one
   panel of weights, 32 outputs wide, meets its rows, the next one is fetched, evenly: memory and sums
   take about the same time. A row's sums are made in one order, whatever stands beside it. Called by mtmoe/ops/packed_linear.py; intrinsics,
   since a compiler may or may not join a product and a sum, and knows no sums of bytes. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FLOAT32 = 1, BFLOAT16 = 2, INT8 = 4 };

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)

int products(void) { return 0; }

int multiply(const void *maps, const int64_t *counts, int64_t groups, const float *x, float *out) {
    (void)maps, (void)counts, (void)groups, (void)x, (void)out;
    return 1; /* nobody asks */
}

#else

#include <immintrin.h>

#define LANES 16
#define LINE 64   /* bytes that are fetched together, a vector */
#define WIDTH 32  /* outputs of a panel: two vectors */
#define ROWS 12   /* whose sums fit the registers beside a panel's vectors */
#define CHUNK 240 /* rows that stay in the cache while all panels pass */
#define AHEAD 64  /* pairs of vectors, fetched before their rows are: where one tile takes all */

typedef struct {
    int64_t inputs, outputs; /* K, N */
    int64_t words;           /* of 32 bits, that K numbers take as they are multiplied */
    int32_t kind, has_relu;
    const int32_t *weight;   /* (N / 32, words, 32), N rounded up */
    const float *bias;       /* (N,), rounded up to 32, as the next two, which are INT8's */
    const float *scale;      /* of each output, over 127 */
    const int32_t *shift;    /* 128 times the sum of each output's weights */
} Linear;

void round_rows(const float *x, int64_t rows, int64_t columns, uint8_t *rounded, float *largest);

typedef struct {
    __m512i lanes[ROWS][2]; /* float32, or int32 of INT8 */
} Sums;

#define ADD_FLOAT32(sum, w, x)                                                                     \
    _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x),            \
                                        _mm512_castsi512_ps(sum)))
#define ADD_BFLOAT16(sum, w, x)                                                                    \
    _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)(w), (__m512bh)(x)))
#define ADD_INT8(sum, w, x) _mm512_dpbusd_epi32(sum, x, w)

/* The sums of N rows by one panel, while lines from `next` on are fetched, `step` bytes for a word. */
#define TILE(KIND, N)                                                                              \
    static void KIND##_##N(const int32_t *x, int64_t words, const int32_t *w, const char *next,    \
                           int64_t step, Sums *sums) {                                             \
        __m512i sum[N][2];                                                                         \
        _Pragma("GCC unroll 12") for (int r = 0; r < N; r++)                                       \
            sum[r][0] = sum[r][1] = _mm512_setzero_si512();                                        \
        for (int64_t k = 0; k < words; k++, w += WIDTH) {                                          \
            __m512i first = _mm512_loadu_si512(w), second = _mm512_loadu_si512(w + LANES);         \
            _mm_prefetch(next, _MM_HINT_T1);                                                       \
            if (step > LINE) _mm_prefetch(next + LINE, _MM_HINT_T1);                               \
            next += step;                                                                          \
            _Pragma("GCC unroll 12") for (int r = 0; r < N; r++) {                                 \
                __m512i all = _mm512_set1_epi32(x[r * words + k]);                                 \
                sum[r][0] = ADD_##KIND(sum[r][0], first, all);                                     \
                sum[r][1] = ADD_##KIND(sum[r][1], second, all);                                    \
            }                                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 12") for (int r = 0; r < N; r++) {                                     \
            sums->lanes[r][0] = sum[r][0];                                                         \
            sums->lanes[r][1] = sum[r][1];                                                         \
        }                                                                                          \
    }

typedef void Tile(const int32_t *x, int64_t words, const int32_t *w, const char *next, int64_t step,
                  Sums *sums);

#define TILES(KIND)                                                                                \
    TILE(KIND, 1) TILE(KIND, 2) TILE(KIND, 3) TILE(KIND, 4) TILE(KIND, 5) TILE(KIND, 6)            \
    TILE(KIND, 7) TILE(KIND, 8) TILE(KIND, 9) TILE(KIND, 10) TILE(KIND, 11) TILE(KIND, 12)         \
    static Tile *const KIND##_tiles[ROWS] = {                                                      \
        KIND##_1, KIND##_2, KIND##_3, KIND##_4, KIND##_5, KIND##_6,                                \
        KIND##_7, KIND##_8, KIND##_9, KIND##_10, KIND##_11, KIND##_12,                             \
    };

TILES(FLOAT32)

/* Where a CPU multiplies matrices (AMX), oneDNN's products of short numbers are the faster ones. */
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define HAS_BFLOAT16 1
TILES(BFLOAT16)
#else
#define HAS_BFLOAT16 0
#define BFLOAT16_tiles FLOAT32_tiles /* nobody asks */
#endif
#if defined(__AVX512VNNI__) && !defined(__AMX_INT8__)
#define HAS_INT8 1
TILES(INT8)
#else
#define HAS_INT8 0
#define INT8_tiles FLOAT32_tiles
#endif

/* The kinds that `multiply` takes. */
int products(void) { return FLOAT32 | HAS_BFLOAT16 * BFLOAT16 | HAS_INT8 * INT8; }

/* (rows, K) numbers to (rows, words) as they are multiplied; largest: see `round_rows`. */
static void convert(const Linear *w, const float *x, int64_t rows, int32_t *to, float *largest) {
    int64_t K = w->inputs;
#if HAS_BFLOAT16
    if (w->kind == BFLOAT16)
        for (int64_t r = 0; r < rows; r++, x += K, to += w->words)
            for (int64_t k = 0; k < K; k += LANES) {
                int64_t left = K - k;
                __mmask16 here = left < LANES ? (1u << left) - 1 : 0xffff;
                __m512 some = _mm512_maskz_loadu_ps(here, x + k);
                int64_t words = (left + 1) / 2; /* one number more: 0 */
                __mmask8 there = words < LANES / 2 ? (1u << words) - 1 : 0xff;
                _mm256_mask_storeu_epi32(to + k / 2, there, (__m256i)_mm512_cvtneps_pbh(some));
            }
#endif
    if (w->kind == INT8)
        for (int64_t r = 0; r < rows; r++, x += K, to += w->words, largest++) {
            if (w->words) to[w->words - 1] = 0;
            round_rows(x, 1, K, (uint8_t *)to, largest);
        }
}

/* The sums of `rows` rows and the panel at `column`, to outputs. */
static void finish(const Linear *w, const Sums *sums, int64_t rows, int64_t column,
                   const float *largest, float *out) {
    for (int v = 0; v < 2 && column + v * LANES < w->outputs; v++) {
        int64_t n = column + v * LANES, left = w->outputs - n;
        __mmask16 here = left < LANES ? (1u << left) - 1 : 0xffff;
        __m512 bias = _mm512_loadu_ps(w->bias + n);
        for (int64_t r = 0; r < rows; r++) {
            __m512 y = _mm512_castsi512_ps(sums->lanes[r][v]);
            if (w->kind == INT8) {
                __m512i shift = _mm512_loadu_si512(w->shift + n);
                y = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums->lanes[r][v], shift));
                y = _mm512_mul_ps(y, _mm512_loadu_ps(w->scale + n));
                y = _mm512_fmadd_ps(y, _mm512_set1_ps(largest[r]), bias);
            } else {
                y = _mm512_add_ps(y, bias);
            }
            if (w->has_relu) { /* NaN stays */
                __m512 zero = _mm512_setzero_ps();
                y = _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), zero);
            }
            _mm512_mask_storeu_ps(out + r * w->outputs + n, here, y);
        }
    }
}

static void multiply_chunk(const Linear *w, const int32_t *x, const float *largest, int64_t rows,
                           float *out) {
    Tile *const *tiles = w->kind == FLOAT32    ? FLOAT32_tiles
                         : w->kind == BFLOAT16 ? BFLOAT16_tiles
                                               : INT8_tiles;
    int64_t num_tiles = (rows + ROWS - 1) / ROWS, ahead = num_tiles == 1 ? AHEAD : w->words;
    int64_t step = (2 * LINE + num_tiles - 1) / num_tiles; /* each tile fetches its part */
    const int32_t *panel = w->weight;
    for (int64_t n = 0; n < w->outputs; n += WIDTH, panel += w->words * WIDTH)
        for (int64_t t = 0, m = 0; t < num_tiles; t++) {
            int64_t end = (t + 1) * rows / num_tiles;
            const char *next = (const char *)(panel + ahead * WIDTH) + t * step * w->words;
            Sums sums;
            tiles[end - m - 1](x + m * w->words, w->words, panel, next, step, &sums);
            finish(w, &sums, end - m, n, largest + m, out + m * w->outputs);
            m = end;
        }
}

/* Rows of x, (R, K), to rows of out, (R, N): the first counts[0] by maps[0], and so on. All maps have
   one kind and one size. Returns 0, or 1: no memory. */
int multiply(const Linear *const *maps, const int64_t *counts, int64_t groups, const float *x,
             float *out) {
    int32_t *memory = NULL;
    float largest[CHUNK];
    if (groups && maps[0]->kind != FLOAT32) {
        memory = malloc((CHUNK * maps[0]->words + 1) * sizeof *memory);
        if (!memory) return 1;
    }
    for (int64_t g = 0; g < groups; g++) {
        const Linear *w = maps[g];
        for (int64_t m = 0; m < counts[g];) {
            int64_t rows = counts[g] - m < CHUNK ? counts[g] - m : CHUNK;
            const int32_t *numbers = (const int32_t *)x;
            if (memory) {
                convert(w, x, rows, memory, largest);
                numbers = memory;
            }
            multiply_chunk(w, numbers, largest, rows, out);
            x += rows * w->inputs;
            out += rows * w->outputs;
            m += rows;
        }
    }
    free(memory);
    return 0;
}

#endif
