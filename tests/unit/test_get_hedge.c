/* What the read quorum says of hedges: who may be asked, or written to, where others are late. Orders of answers are
 * drawn in test_get_quorum.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "quorum/get.h"

static struct version version_of(uint64_t value)
{
    return (struct version){.value = {.time = value}};
}

/* Three replicas, R = 2, both asked. */
static struct get_quorum asked_two_of_three(void)
{
    struct get_quorum get;
    get_start(&get, 3, 2);
    for (uint8_t i = 0; i < 2; i++) {
        assert_int_equal(get_decide(&get, false), GET_ASK);
        get_sent(&get, get.chosen);
    }
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    return get;
}

static void answer(struct get_quorum *get, uint8_t replica, uint64_t held, bool has_record)
{
    struct version merged = get->merged;
    if (has_record)
        merged.value = stamp_max(merged.value, version_of(held).value);
    struct get_answer answered = {
        .counts = true, .has_record = has_record, .version = version_of(held), .merged = merged};
    get_answered(get, replica, &answered);
}

static void write_back_that_is_late_can_go_to_another(void **state)
{
    (void)state;
    struct get_quorum get = asked_two_of_three();
    assert_int_equal(get_hedge_write(&get), REPLICAS_MAX); /* it reads yet */
    answer(&get, 0, 5, true);
    answer(&get, 1, 3, true);
    assert_int_equal(get_hedge_write(&get), REPLICAS_MAX); /* nothing has been written yet */
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    assert_int_equal(get.chosen, 1);
    get_write_sent(&get, 1);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    assert_int_equal(get_hedge_write(&get), 2);
    get_write_sent(&get, 2);
    assert_int_equal(get_hedge_write(&get), REPLICAS_MAX);
    get_write_acked(&get, 2);
    assert_int_equal(get_decide(&get, false), GET_DONE);
}

static void record_on_its_way_is_not_awaited_once_another_has_brought_it(void **state)
{
    (void)state;
    struct get_quorum get = asked_two_of_three();
    answer(&get, 0, 3, true);
    answer(&get, 1, 5, false);
    assert_int_equal(get_decide(&get, false), GET_FETCH);
    assert_int_equal(get.chosen, 1);
    get_sent(&get, 1);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    assert_int_equal(get_hedge(&get), 2);
    get_sent(&get, 2);
    answer(&get, 2, 5, true);
    assert_int_equal(get_decide(&get, false), GET_DONE);
    assert_int_equal(get.merged.value.time, 5);
}

static void record_on_its_way_is_awaited_while_it_may_be_newer(void **state)
{
    (void)state;
    struct get_quorum get = asked_two_of_three();
    answer(&get, 0, 3, true);
    answer(&get, 1, 5, false);
    assert_int_equal(get_decide(&get, false), GET_FETCH);
    get_sent(&get, 1);
    get_sent(&get, 2);
    answer(&get, 2, 4, true);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_back_that_is_late_can_go_to_another),
        cmocka_unit_test(record_on_its_way_is_not_awaited_once_another_has_brought_it),
        cmocka_unit_test(record_on_its_way_is_awaited_while_it_may_be_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
