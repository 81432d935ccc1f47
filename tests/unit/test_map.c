/* Unit tests of src/base/map: against an array indexed by the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/map.h"
#include "base/prng.h"

#define BUDGET_BYTES (1u << 20)
#define KEYS_COUNT 300

/* Every entry that map_next gives is expected, and as many as the map counts. */
static void check_walk(const struct map *map, char *const *expected, const char *values)
{
    uint32_t at = 0;
    uint32_t walked = 0;
    for (const char *value = map_next(map, &at); value != NULL; value = map_next(map, &at)) {
        assert_in_range(value - values, 1, KEYS_COUNT - 1);
        assert_ptr_equal(value, expected[value - values]);
        walked++;
    }
    assert_int_equal(walked, map->count);
}

static void map_behaves_like_an_array_while_keys_come_and_go(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        static char values[KEYS_COUNT];
        char *expected[KEYS_COUNT] = {0};
        struct alloc alloc;
        struct map map;
        struct prng prng;
        uint32_t count = 0;
        alloc_init(&alloc, BUDGET_BYTES);
        map_init(&map, &alloc);
        prng_seed(&prng, seed);
        for (int step = 0; step < 20000; step++) {
            uint64_t key = 1 + prng_below(&prng, KEYS_COUNT - 1);
            if (expected[key] == NULL) {
                assert_int_equal(map_put(&map, key, &values[key]), STATUS_OK);
                expected[key] = &values[key];
                count++;
            } else if (prng_chance(&prng, 1, 2)) {
                assert_ptr_equal(map_take(&map, key), expected[key]);
                assert_null(map_take(&map, key));
                expected[key] = NULL;
                count--;
            }
            uint64_t looked_up = 1 + prng_below(&prng, KEYS_COUNT - 1);
            assert_ptr_equal(map_get(&map, looked_up), expected[looked_up]);
            assert_int_equal(map.count, count);
        }
        check_walk(&map, expected, values);
        for (uint64_t key = 1; key < KEYS_COUNT; key++)
            assert_ptr_equal(map_take(&map, key), expected[key]);
        assert_int_equal(map.count, 0);
        map_free(&map);
        assert_int_equal(alloc.used_bytes, 0);
    }
}

static void map_that_is_empty_holds_nothing(void **state)
{
    (void)state;
    struct alloc alloc;
    struct map map;
    uint32_t at = 0;
    alloc_init(&alloc, BUDGET_BYTES);
    map_init(&map, &alloc);
    assert_null(map_get(&map, 1));
    assert_null(map_take(&map, UINT64_MAX));
    assert_null(map_next(&map, &at));
    map_free(&map);
    assert_int_equal(alloc.used_bytes, 0);
}

static void map_without_memory_keeps_what_it_holds(void **state)
{
    (void)state;
    char value = 0;
    struct alloc alloc;
    struct map map;
    alloc_init(&alloc, BUDGET_BYTES);
    alloc.fail_at_call = 2;
    map_init(&map, &alloc);
    uint64_t key = 1;
    while (map_put(&map, key, &value) == STATUS_OK)
        key++;
    assert_int_equal(map.count, key - 1);
    assert_null(map_get(&map, key));
    for (uint64_t held = 1; held < key; held++)
        assert_ptr_equal(map_get(&map, held), &value);
    assert_int_equal(map_put(&map, key, &value), STATUS_OK);
    assert_ptr_equal(map_get(&map, key), &value);
    map_free(&map);
    assert_int_equal(alloc.used_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_behaves_like_an_array_while_keys_come_and_go),
        cmocka_unit_test(map_that_is_empty_holds_nothing),
        cmocka_unit_test(map_without_memory_keeps_what_it_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
