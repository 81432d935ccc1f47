/* Keys and values of a load generator. */
#include "cli/bench_data.h"

#include <assert.h>

#include "base/hash.h"
#include "proto/resp_reply.h"

#define KEY_BYTES_USUAL 16u
#define FILLER_WINDOW_BYTES (256u << 10)
#define FILLER_SEED UINT64_C(0x66696c6c6572)
#define COMMAND_FRAME_BYTES 64u

/* A value's head; the filler follows. */
#define CHECKSUM_BYTES 8u
#define NUMBER_AT 8u
#define NONCE_AT 16u

uint32_t bench_key_digits(size_t prefix_bytes, uint64_t keys)
{
    uint32_t needed = 1;
    for (uint64_t last = keys - 1; last >= 10; last /= 10)
        needed++;
    uint32_t usual = prefix_bytes < KEY_BYTES_USUAL ? KEY_BYTES_USUAL - (uint32_t)prefix_bytes : 0;
    return usual > needed ? usual : needed;
}

bool bench_data_init(struct bench_data *data, struct alloc *alloc)
{
    struct prng prng;
    data->seed = hash_64(data->prefix, 0);
    data->filler_bytes = FILLER_WINDOW_BYTES + data->value_bytes_max;
    data->filler = alloc_get(alloc, data->filler_bytes);
    if (data->filler == NULL)
        return false;
    prng_seed(&prng, FILLER_SEED);
    for (size_t at = 0; at < data->filler_bytes; at++)
        data->filler[at] = (uint8_t)(prng_u64(&prng) >> 56);
    return true;
}

void bench_data_free(struct bench_data *data, struct alloc *alloc)
{
    alloc_put(alloc, data->filler, data->filler_bytes);
    data->filler = NULL;
}

uint64_t bench_draw(const struct bench_data *data, struct prng *prng, uint64_t next)
{
    switch (data->order) {
    case BENCH_ORDER_ZIPF:
        return zipf_draw(&data->zipf, prng);
    case BENCH_ORDER_SEQUENTIAL:
        return next % data->keys;
    default:
        return prng_below(prng, data->keys);
    }
}

/* "$16\r\nbench:0000000007\r\n" */
static void put_key(const struct bench_data *data, uint64_t number, struct buf *out)
{
    resp_reply_header(out, '$', (int64_t)(data->prefix.size + data->digits));
    buf_append_span(out, data->prefix);
    if (!buf_reserve(out, data->digits + 2u))
        return;
    uint8_t *at = out->data + out->size;
    for (uint32_t i = data->digits; i > 0; i--) {
        at[i - 1] = (uint8_t)('0' + number % 10);
        number /= 10;
    }
    at[data->digits] = '\r';
    at[data->digits + 1] = '\n';
    out->size += data->digits + 2u;
}

void bench_put_get(const struct bench_data *data, uint64_t number, struct buf *out)
{
    static const char head[] = "*2\r\n$3\r\nGET\r\n";
    buf_append(out, head, sizeof(head) - 1);
    put_key(data, number, out);
}

void bench_put_set(const struct bench_data *data, uint64_t number, struct prng *prng, struct buf *out)
{
    static const char head[] = "*3\r\n$3\r\nSET\r\n";
    size_t size = data->value_bytes_min;
    if (data->value_bytes_max > size)
        size += (size_t)prng_below(prng, data->value_bytes_max - size + 1);
    assert(size >= BENCH_VALUE_BYTES_MIN);
    uint64_t nonce = prng_u64(prng);
    buf_append(out, head, sizeof(head) - 1);
    put_key(data, number, out);
    resp_reply_header(out, '$', (int64_t)size);
    if (!buf_reserve(out, size + 2))
        return;
    uint8_t *value = out->data + out->size;
    store_u64(value + NUMBER_AT, number);
    store_u64(value + NONCE_AT, nonce);
    memcpy(value + BENCH_VALUE_BYTES_MIN, data->filler + nonce % FILLER_WINDOW_BYTES,
           size - BENCH_VALUE_BYTES_MIN);
    store_u64(value, hash_64(span_of(value + CHECKSUM_BYTES, size - CHECKSUM_BYTES), data->seed));
    value[size] = '\r';
    value[size + 1] = '\n';
    out->size += size + 2;
}

size_t bench_command_bytes_max(const struct bench_data *data)
{
    return data->value_bytes_max + data->prefix.size + data->digits + COMMAND_FRAME_BYTES;
}

enum bench_verdict bench_check(const struct bench_data *data, uint64_t number, struct span value)
{
    if (value.size < BENCH_VALUE_BYTES_MIN ||
        load_u64(value.data) !=
            hash_64(span_of(value.data + CHECKSUM_BYTES, value.size - CHECKSUM_BYTES), data->seed))
        return BENCH_VALUE_DAMAGED;
    return load_u64(value.data + NUMBER_AT) == number ? BENCH_VALUE_GOOD : BENCH_VALUE_FOREIGN;
}
