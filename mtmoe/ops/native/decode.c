/* Translation's inner loops on a CPU: attention of single positions to a cache, and rounding of rows.

   Compiled by mtmoe/ops/native/__init__.py, which says what each function takes. Vectors are the compiler's
   own (GCC 12, Clang), so that sums have one order on every machine with as many lanes. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define MOST_VECTORS 64 /* of LANES numbers, that a head may have */
#define UNROLL _Pragma("GCC unroll 8")
#define FETCH(POINTER, BYTES)                                                                      \
    UNROLL for (int64_t line = 0; line < (int64_t)(BYTES); line += 64)                             \
        __builtin_prefetch((const char *)(POINTER) + line)

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t uints __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef float floats8 __attribute__((vector_size(32)));
typedef float floats4 __attribute__((vector_size(16)));

static inline floats load(const float *p) {
    floats x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void store(float *p, floats x) { memcpy(p, &x, sizeof x); }

static inline floats load_bfloat16(const uint16_t *p) {
    halves x;
    memcpy(&x, p, sizeof x);
    uints wide = __builtin_convertvector(x, uints) << 16;
    return (floats)wide;
}

static inline floats splat(float x) { return x - (floats){0}; }

static inline floats larger(floats a, floats b) {
    ints is_a = a > b;
    return (floats)(((ints)a & is_a) | ((ints)b & ~is_a));
}

static inline float sum_lanes(floats x) {
    floats8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7)
              + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    floats4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

static inline float largest_lane(floats x) {
    float most = x[0];
    for (int n = 1; n < LANES; n++) most = x[n] > most ? x[n] : most;
    return most;
}

/* exp(x) for x <= 0, to 2 units in the last place: 2^n times a polynomial of the rest. */
static inline floats exp_negative(floats x) {
    x = larger(x, splat(-87.0f));
    ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, ints); /* towards 0: rounds x <= 0 */
    floats whole = __builtin_convertvector(n, floats);
    floats r = x - whole * 0.693359375f;
    r = r - whole * -2.12194440e-4f;
    floats y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    ints power = (n + 127) << 23;
    return y * (floats)power;
}

typedef struct {
    int64_t sentences, heads, queries, positions, head_dim;
    int64_t query[3], key[3], value[3]; /* steps between sentences, heads, positions */
    int64_t visible[3];                 /* between sentences, queries, positions */
    int32_t is_bfloat16, visible_kind;  /* 0: all seen; 1: bytes, 0 hides; 2: floats, added */
    float scale;
} Shape;

/* One query and the `count` positions `seen`; VECTORS = head_dim / 16, a number, so that they stay in
   registers, or `any`. */
#define ATTEND(NAME, TYPE, LOAD, VECTORS, ROOM)                                                    \
    static void NAME(const float *query, const TYPE *key, const TYPE *value, const Shape *s,       \
                     const int32_t *seen, const float *added, float *weight, int count,            \
                     float *out) {                                                                 \
        int64_t key_step = s->key[2], value_step = s->value[2], any = s->head_dim / LANES;         \
        const TYPE *next = key + s->key[1]; /* the next head's, as a rule */                       \
        (void)any;                                                                                 \
        floats q[ROOM], sum[ROOM];                                                                 \
        UNROLL for (int v = 0; v < VECTORS; v++) {                                                 \
            q[v] = load(query + v * LANES) * s->scale;                                             \
            sum[v] = (floats){0};                                                                  \
        }                                                                                          \
        float none = 0.0f; /* becomes NaN with the first score that is no number */                \
        for (int n = 0; n < count; n++) {                                                          \
            const TYPE *row = key + seen[n] * key_step;                                            \
            FETCH(value + seen[n] * value_step, VECTORS * LANES * sizeof(TYPE));                   \
            floats dot = q[0] * LOAD(row);                                                         \
            UNROLL for (int v = 1; v < VECTORS; v++) dot += q[v] * LOAD(row + v * LANES);          \
            weight[n] = sum_lanes(dot) + added[n];                                                 \
            none += weight[n] * 0.0f;                                                              \
        }                                                                                          \
        int padded = count ? (count + LANES - 1) / LANES * LANES : LANES;                          \
        for (int n = count; n < padded; n++) weight[n] = -INFINITY;                                \
        floats most = load(weight), total = {0};                                                   \
        for (int n = LANES; n < padded; n += LANES) most = larger(most, load(weight + n));         \
        float top = largest_lane(most);                                                            \
        for (int n = 0; n < padded; n += LANES) {                                                  \
            floats x = load(weight + n), e = exp_negative(x - top);                                \
            e = (floats)((ints)e & (x > -INFINITY));                                               \
            store(weight + n, e);                                                                  \
            total += e;                                                                            \
        }                                                                                          \
        for (int n = 0; n < count; n++) {                                                          \
            const TYPE *row = value + seen[n] * value_step;                                        \
            FETCH(next + seen[n] * key_step, VECTORS * LANES * sizeof(TYPE));                      \
            UNROLL for (int v = 0; v < VECTORS; v++) sum[v] += weight[n] * LOAD(row + v * LANES);  \
        }                                                                                          \
        float share = count ? 1.0f / sum_lanes(total) + none : 0.0f;                               \
        UNROLL for (int v = 0; v < VECTORS; v++) store(out + v * LANES, sum[v] * share);           \
    }

#define EACH_SIZE(NAME, TYPE, LOAD)                                                                \
    ATTEND(NAME##_1, TYPE, LOAD, 1, 1)                                                             \
    ATTEND(NAME##_2, TYPE, LOAD, 2, 2)                                                             \
    ATTEND(NAME##_4, TYPE, LOAD, 4, 4)                                                             \
    ATTEND(NAME##_8, TYPE, LOAD, 8, 8)                                                             \
    ATTEND(NAME##_any, TYPE, LOAD, any, MOST_VECTORS)

EACH_SIZE(attend_float32, float, load)
EACH_SIZE(attend_bfloat16, uint16_t, load_bfloat16)

/* out: (sentences, queries, heads, head_dim). Returns 0, or 1: no memory. */
int attend(const Shape *s, const float *query, const void *key, const void *value,
           const void *visible, float *out) {
    int64_t S = s->positions, K = s->queries, H = s->heads, d = s->head_dim;
    int64_t room = (S + LANES) * (2 * K + 1) + K;
    float *memory = malloc(room * sizeof(float) + K * (S + 1) * sizeof(int32_t));
    if (!memory) return 1;
    float *weight = memory, *added = memory + S + LANES;
    int32_t *seen = (int32_t *)(memory + room), *count = seen + K * S;
    for (int64_t b = 0; b < s->sentences; b++) {
        for (int64_t k = 0; k < K; k++) {
            int n = 0;
            const char *at = visible;
            int64_t first = b * s->visible[0] + k * s->visible[1];
            for (int64_t p = 0; p < S; p++) {
                int64_t place = first + p * s->visible[2];
                float more = 0.0f;
                if (s->visible_kind == 1 && !at[place]) continue;
                if (s->visible_kind == 2) more = ((const float *)visible)[place];
                if (more == -INFINITY) continue;
                added[k * S + n] = more;
                seen[k * S + n++] = (int32_t)p;
            }
            count[k] = n;
        }
        for (int64_t h = 0; h < H; h++)
            for (int64_t k = 0; k < K; k++) {
                const float *q = query + b * s->query[0] + h * s->query[1] + k * s->query[2];
                int64_t from_key = b * s->key[0] + h * s->key[1];
                int64_t from_value = b * s->value[0] + h * s->value[1];
                float *to = out + ((b * K + k) * H + h) * d;
#define CALL(NAME, TYPE)                                                                           \
    NAME(q, (const TYPE *)key + from_key, (const TYPE *)value + from_value, s, seen + k * S,       \
         added + k * S, weight, count[k], to)
#define CALL_SIZE(SIZE)                                                                            \
    if (s->is_bfloat16) CALL(attend_bfloat16_##SIZE, uint16_t);                                    \
    else CALL(attend_float32_##SIZE, float)
                switch (d / LANES) {
                case 1: CALL_SIZE(1); break;
                case 2: CALL_SIZE(2); break;
                case 4: CALL_SIZE(4); break;
                case 8: CALL_SIZE(8); break;
                default: CALL_SIZE(any);
                }
            }
    }
    free(memory);
    return 0;
}

/* (rows, columns) x to bytes 128.5 + 127 x / largest, cut; largest: of each row's sizes, or TINY. */
void round_rows(const float *x, int64_t rows, int64_t columns, uint8_t *rounded, float *largest) {
    for (int64_t m = 0; m < rows; m++, x += columns, rounded += columns) {
        floats most = splat(1e-30f), nothing = {0}; /* or NaN */
        int64_t n = 0;
        for (; n + LANES <= columns; n += LANES) {
            floats v = load(x + n);
            most = larger(most, larger(v, -v));
            nothing += v * 0.0f;
        }
        float top = largest_lane(most), none = sum_lanes(nothing);
        for (int64_t i = n; i < columns; i++) {
            top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
            none += x[i] * 0.0f;
        }
        float factor = 127.0f / top;
        for (n = 0; n + LANES <= columns; n += LANES) {
            ints v = __builtin_convertvector(load(x + n) * factor + 128.5f, ints);
            bytes b = __builtin_convertvector(v, bytes);
            memcpy(rounded + n, &b, sizeof b);
        }
        for (; n < columns; n++) rounded[n] = (uint8_t)(x[n] * factor + 128.5f);
        largest[m] = top + none;
    }
}

/* sums (rows, columns) times the factor of its row, plus bias, and maybe its ReLU; in place. */
void scale_rows(float *sums, int64_t rows, int64_t columns, const float *factor, const float *bias,
                int32_t has_relu) {
    float least = has_relu ? 0.0f : -INFINITY;
    for (int64_t m = 0; m < rows; m++, sums += columns)
        for (int64_t n = 0; n < columns; n++) {
            float y = sums[n] * factor[m] + (bias ? bias[n] : 0.0f);
            sums[n] = y < least ? least : y;
        }
}

/* log of the sum of exp(x) of each row, (rows,); NaN if one of them is no number or infinite. */
void log_sums(const float *x, int64_t rows, int64_t columns, float *out) {
    for (int64_t m = 0; m < rows; m++, x += columns) {
        int64_t whole = columns - columns % LANES;
        floats most = splat(-INFINITY), total = {0};
        ints is_none = {0};
        for (int64_t n = 0; n < whole; n += LANES) most = larger(most, load(x + n));
        float top = largest_lane(most), rest = 0.0f;
        for (int64_t n = whole; n < columns; n++) top = x[n] > top ? x[n] : top;
        for (int64_t n = 0; n < whole; n += LANES) {
            floats below = load(x + n) - top;
            total += exp_negative(below);
            is_none |= below != below;
        }
        for (int64_t n = whole; n < columns; n++) rest += expf(x[n] - top);
        float none = sum_lanes(__builtin_convertvector(is_none, floats)) < 0.0f ? NAN : 0.0f;
        out[m] = top + logf(sum_lanes(total) + rest) + none;
    }
}
