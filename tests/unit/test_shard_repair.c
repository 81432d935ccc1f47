/* Repair in a world that moves only when the test says so: what a replica says rests on what is durable there. */
#include "shard_world.h"

static const struct world_options repairing = {.nodes = 3, .cold_empty = true, .repair = true};

static void pass_seconds(struct world *world, uint32_t seconds)
{
    for (uint32_t i = 0; i < 10 * seconds; i++)
        world_pass(world, 100);
}

static void nothing_is_called_equal_before_it_is_durable(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &repairing);
    warm_up(&world);
    world.node[1].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    (void)world_trace(&world);
    pass_seconds(&world, 5);
    const char *trace = world_trace(&world);
    assert_non_null(strstr(trace, "n0>n1 REPAIR\n"));
    assert_null(strstr(trace, "n1>n0 REPAIR_ANSWER\n"));
    world.node[1].log_held = false;
    pass_seconds(&world, 5);
    assert_non_null(strstr(world_trace(&world), "n1>n0 REPAIR_ANSWER\n"));
    world_close(&world);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_called_equal_before_it_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
