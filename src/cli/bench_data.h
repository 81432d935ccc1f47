/* What a load generator writes and how it knows again what it reads.
 *
 * A key is a prefix and a number. A value is
 *
 *     checksum 8 | number of its key 8 | nonce 8 | filler
 *
 * little endian; the checksum is XXH3 of all that follows, seeded with the key's prefix. So a value that is torn, cut
 * short, or another key's is found out by looking at it alone. The filler is a window of random bytes, so that
 * compression gains what it gains on data that does not repeat itself. */
#ifndef RONDO_CLI_BENCH_DATA_H
#define RONDO_CLI_BENCH_DATA_H

#include "base/prng.h"
#include "base/span.h"
#include "cli/zipf.h"

#define BENCH_VALUE_BYTES_MIN 24u
#define BENCH_PREFIX_BYTES_MAX 200u
#define BENCH_KEY_BYTES_MAX (BENCH_PREFIX_BYTES_MAX + 20u)

enum bench_order {
    BENCH_ORDER_UNIFORM,
    BENCH_ORDER_ZIPF,
    BENCH_ORDER_SEQUENTIAL, /* one after the other, over all connections */
};

struct bench_data {
    struct span prefix;
    uint32_t digits; /* of a key's number, with leading zeros */
    uint64_t keys;
    enum bench_order order;
    struct zipf zipf;
    size_t value_bytes_min; /* sizes are uniform between them */
    size_t value_bytes_max;
    uint64_t seed; /* of the checksums */
    uint8_t *filler;
    size_t filler_bytes;
};

/* How many digits make a key of 16 bytes, or as many as its number needs. */
uint32_t bench_key_digits(size_t prefix_bytes, uint64_t keys);

/* Sets seed and filler, from the members before them; false without memory. */
bool bench_data_init(struct bench_data *data, struct alloc *alloc);
void bench_data_free(struct bench_data *data, struct alloc *alloc);

/* Draws a key's number; of a sequential order it is `next` modulo the keys. */
uint64_t bench_draw(const struct bench_data *data, struct prng *prng, uint64_t next);

/* Appends GET of a key, or SET with a value made from the prng. A buf without room fails. */
void bench_put_get(const struct bench_data *data, uint64_t number, struct buf *out);
void bench_put_set(const struct bench_data *data, uint64_t number, struct prng *prng, struct buf *out);

/* The bytes that one command takes at most. */
size_t bench_command_bytes_max(const struct bench_data *data);

enum bench_verdict {
    BENCH_VALUE_GOOD,
    BENCH_VALUE_FOREIGN, /* whole, but another key's */
    BENCH_VALUE_DAMAGED, /* torn, cut short, or never written by a load generator of this prefix */
};

enum bench_verdict bench_check(const struct bench_data *data, uint64_t number, struct span value);

#endif
