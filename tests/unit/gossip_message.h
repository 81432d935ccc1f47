/* Writing gossip messages in tests. */
#ifndef RONDO_TESTS_GOSSIP_MESSAGE_H
#define RONDO_TESTS_GOSSIP_MESSAGE_H

#include "gossip/message.h"

static const struct hash_128 cluster = {77, 88};

static void write_message(struct buf *buf, const struct message *message, const struct rumour *rumours,
                          size_t count)
{
    buf_clear(buf);
    message_begin(buf, cluster, message);
    for (size_t i = 0; i < count; i++)
        message_add_rumour(buf, &rumours[i]);
    message_seal(buf, 0, cluster);
    assert_false(buf->failed);
}

#endif
