/* Reserved cold keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/reserved.h"

static enum status slot_of(const char *bytes, size_t size, uint16_t *slot)
{
    return reserved_key_slot(span_of(bytes, size), slot);
}

#define SLOT_OF(text) slot_of(text, sizeof(text) - 1, &slot)

static void keys_of_each_kind_name_their_slot(void **state)
{
    (void)state;
    uint16_t slot = 0;
    uint8_t bytes[RESERVED_SLOT_KEY_BYTES];
    reserved_slot_key(RESERVED_FLOOR, SLOTS_COUNT - 1, bytes);
    assert_int_equal(reserved_key_slot(span_of(bytes, sizeof bytes), &slot), STATUS_OK);
    assert_int_equal(slot, SLOTS_COUNT - 1);
    reserved_slot_key(RESERVED_TREE, 0x0102, bytes);
    assert_memory_equal(bytes, "\xff\xfd\x01\x02", 4);
    assert_int_equal(reserved_key_slot(span_of(bytes, sizeof bytes), &slot), STATUS_OK);
    assert_int_equal(slot, 0x0102);
    assert_int_equal(SLOT_OF("\xff\xfe\0\0\0\0\0\0\0\x09\x03\x04"), STATUS_OK);
    assert_int_equal(slot, 0x0304);
    /* The slot of "foo" is 12182. */
    assert_int_equal(SLOT_OF("\xff\xff\x09\0\0\0\0\0\0\0\x2f\x96"
                             "foo"),
                     STATUS_OK);
    assert_int_equal(slot, 12182);
}

static void what_is_no_reserved_key_is_malformed(void **state)
{
    (void)state;
    uint16_t slot = 0;
    assert_int_equal(SLOT_OF(""), STATUS_MALFORMED);
    assert_int_equal(SLOT_OF("\xff"), STATUS_MALFORMED);
    assert_int_equal(SLOT_OF("\xff\xfb\x01\x02"), STATUS_MALFORMED); /* below the prefixes */
    assert_int_equal(SLOT_OF("\xff\xfc\x01"), STATUS_MALFORMED);
    assert_int_equal(SLOT_OF("\xff\xfd\x01\x02\x03"), STATUS_MALFORMED);
    assert_int_equal(SLOT_OF("\xff\xfc\x40\x00"), STATUS_MALFORMED); /* no such slot */
    assert_int_equal(SLOT_OF("\xff\xfe\0\0\0\0\0\0\0\x09\x03"), STATUS_MALFORMED);
    assert_int_equal(SLOT_OF("\xff\xfe\0\0\0\0\0\0\0\0\x03\x04"), STATUS_MALFORMED); /* no target */
    assert_int_equal(SLOT_OF("\xff\xfe\0\0\0\0\0\0\0\x09\x03\x04\x05"), STATUS_MALFORMED);
    assert_int_equal(SLOT_OF("\xff\xfe\0\0\0\0\0\0\0\x09\x40\x00"), STATUS_MALFORMED);
    /* A hint whose key is of another slot. */
    assert_int_equal(SLOT_OF("\xff\xff\x09\0\0\0\0\0\0\0\x2f\x97"
                             "foo"),
                     STATUS_MALFORMED);
}

static void reserved_keys_are_told_from_those_of_slots(void **state)
{
    (void)state;
    assert_true(key_reserved(span_of("\xff\xfc", 2)));
    assert_true(key_reserved(span_of("\xff\xff\x01", 3)));
    assert_false(key_reserved(span_of("\x3f\xff\xff\xff", 4)));
    assert_false(key_reserved(span_of("\xff", 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_each_kind_name_their_slot),
        cmocka_unit_test(what_is_no_reserved_key_is_malformed),
        cmocka_unit_test(reserved_keys_are_told_from_those_of_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
