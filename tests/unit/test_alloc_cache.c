/* Unit tests of the free blocks that a struct alloc may keep (base/alloc.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/prng.h"

#define BUDGET_BYTES ((size_t)8 << 20)
#define BLOCKS 3000u
#define STEPS 200000u
#define SIZE_MAX_DRAWN 2000u

struct block {
    uint8_t *bytes;
    size_t size;
    uint8_t fill;
};

static void fill(struct block *block, uint8_t value)
{
    block->fill = value;
    memset(block->bytes, value, block->size);
}

static void check(const struct block *block, size_t size)
{
    for (size_t i = 0; i < size; i++)
        assert_int_equal(block->bytes[i], block->fill);
}

/* Takes, resizes and gives back blocks of all sizes: nobody's bytes are anybody else's, and the count is exact. */
static void kept_blocks_are_nobodys(void **state)
{
    static struct block blocks[BLOCKS];
    (void)state;
    struct prng prng;
    prng_seed(&prng, 7);
    struct alloc alloc;
    struct alloc_cache cache;
    alloc_init(&alloc, BUDGET_BYTES);
    alloc_cache_start(&alloc, &cache);
    size_t used = 0;
    for (uint32_t step = 0; step < STEPS; step++) {
        struct block *block = &blocks[prng_u64(&prng) % BLOCKS];
        size_t size = 1 + prng_u64(&prng) % SIZE_MAX_DRAWN;
        if (block->bytes == NULL) {
            bool zeroed = (step & 1) != 0;
            block->bytes = zeroed ? alloc_get_zeroed(&alloc, size) : alloc_get(&alloc, size);
            assert_non_null(block->bytes);
            block->size = size;
            block->fill = 0;
            if (zeroed)
                check(block, size);
            used += size + ALLOC_OVERHEAD_BYTES;
        } else if ((prng_u64(&prng) & 1) != 0) {
            size_t common = size < block->size ? size : block->size;
            block->bytes = alloc_resize(&alloc, block->bytes, block->size, size);
            assert_non_null(block->bytes);
            check(block, common);
            used += size - block->size;
            block->size = size;
        } else {
            check(block, block->size);
            alloc_put(&alloc, block->bytes, block->size);
            used -= block->size + ALLOC_OVERHEAD_BYTES;
            *block = (struct block){0};
            continue;
        }
        fill(block, (uint8_t)step);
        assert_int_equal(alloc.used_bytes, used);
        assert_true(cache.bytes <= ALLOC_CACHE_BYTES_MAX);
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        alloc_put(&alloc, blocks[i].bytes, blocks[i].size);
    assert_int_equal(alloc.used_bytes, 0);
    assert_true(cache.bytes <= ALLOC_CACHE_BYTES_MAX);
    alloc_cache_stop(&alloc);
}

static void a_budget_holds_with_kept_blocks(void **state)
{
    (void)state;
    struct alloc alloc;
    struct alloc_cache cache;
    alloc_init(&alloc, 100 + ALLOC_OVERHEAD_BYTES);
    alloc_cache_start(&alloc, &cache);
    void *block = alloc_get(&alloc, 100);
    assert_non_null(block);
    assert_null(alloc_resize(&alloc, block, 100, 101));
    alloc_put(&alloc, block, 100);
    assert_null(alloc_get(&alloc, 101));
    alloc.fail_at_call = alloc.calls + 1;
    assert_null(alloc_get(&alloc, 100)); /* also where one is kept */
    block = alloc_get(&alloc, 100);
    assert_non_null(block);
    alloc_put(&alloc, block, 100);
    alloc_cache_stop(&alloc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_blocks_are_nobodys),
        cmocka_unit_test(a_budget_holds_with_kept_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
